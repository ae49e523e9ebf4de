"""The contract holds, and everything that follows from it is there."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import click
import pytest
from click.testing import CliRunner

from celery_aws.app import build
from celery_aws.dev import brokers, results, timeouts
from celery_aws.settings import Settings
from celery_aws.testing import running
from library import support
from library.support import CONTRACT, PATH, PROJECT, fields, module, tasks_of

contract = module("contract")
app = module("service").app()
cli = module("cli")
errors = module("errors")
settings = module("settings")
worker = module("worker")

QUEUES = app.contract.queues


def changed(**values):
    data = json.loads(json.dumps(CONTRACT))
    for name, value in values.items():
        (data if name in data else data["queue_defaults"])[name] = value
    return data


def test_contract_breaks_no_rule():
    assert contract.problems(CONTRACT) == []


def test_docs_list_every_rule():
    page = (PROJECT / "docs" / "timeouts.md").read_text(encoding="utf-8")
    listed = CliRunner().invoke(cli.main, ["contract", "--rules"]).output
    assert page.partition("| field | what holds |\n|---|---|\n")[2] == listed


def test_readme_has_the_contracts_numbers():
    said = timeouts.TARGET.read_text(encoding="utf-8")
    assert said == timeouts.text(), "README.md is older than contract.json: run `make README.md`"
    if timeouts.BEGIN in said:
        for queue in contract.parse(CONTRACT).queues:
            assert f" {queue.name} |" in said
            assert f" {queue.visibility_timeout_seconds} |" in said


def test_every_broken_rule_is_reported_at_once_with_field_value_and_suggestion(tmp_path):
    wrong = tmp_path / "contract.json"
    wrong.write_text(json.dumps(changed(region="mars", hard_limit_seconds=0, max_receive_count="5")))
    with pytest.raises(contract.ContractError) as error:
        contract.read(wrong)
    reported = {problem.field for problem in error.value.problems}
    assert {"region", "hard_limit_seconds", "max_receive_count"} <= reported
    for part in ("region must look like an AWS region", '"mars"', "must be a whole number", "try:"):
        assert part in str(error.value)


def test_help_when_the_contract_breaks_rules_then_is_shown(tmp_path, monkeypatch):
    (tmp_path / "contract.json").write_text(json.dumps(changed(region="mars")))
    monkeypatch.setenv("CONTRACT_FILE", str(tmp_path / "contract.json"))
    for command in ([], ["dlq"], ["queues"], ["cost"]):
        shown = CliRunner().invoke(cli.main, [*command, "--help"])
        assert (shown.exit_code, shown.exception) == (0, None), shown.output
    refused = CliRunner().invoke(cli.main, ["cost"])
    assert (refused.exit_code, "mars" in refused.output) == (2, True)


@pytest.mark.parametrize("text", ["{", '{"service": "\\udc00"}', '{"a": ' + "[" * 60 + "]" * 60 + "}", "[" * 100_000])
def test_a_contract_that_is_no_json_is_reported_as_such(tmp_path, text):
    wrong = tmp_path / "contract.json"
    wrong.write_text(text)
    with pytest.raises(contract.ContractError, match="must be JSON"):
        contract.read(wrong)


@pytest.mark.parametrize(
    ("task", "short"),
    [
        (f"{CONTRACT['package']}.tasks.high.send_invoice", "high.send_invoice"),
        (f"{CONTRACT['package']}.reports.draw", "reports.draw"),
        ("other_jobs.tasks.high.send_invoice", "other_jobs.tasks.high.send_invoice"),
        ("celery.chord_unlock", "celery.chord_unlock"),
        ("", ""),
    ],
)
def test_short_name_of_a_task_leaves_out_the_package_alone(task, short):
    assert app.contract.short_name(task) == short


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_every_queue_has_tasks_a_route_and_a_worker(queue):
    name = tasks_of(queue.name).__name__
    assert f"{name}.measure" in app.tasks
    route = app.amqp.router.route({}, f"{name}.anything")
    assert route["queue"].name == app.contract.celery_name(queue)
    arguments = worker.worker_arguments(app.contract, app.contract.worker_of(queue).name, "INFO")
    (served,) = (argument for argument in arguments if argument.startswith("--queues="))
    assert route["queue"].name in served.removeprefix("--queues=").split(",")


@pytest.mark.parametrize(
    ("chosen", "own", "holds"),
    [
        ((None, None), (None, None), ("hard", "soft")),
        ((2, None), (None, None), (2, None)),
        ((None, None), (2, None), (2, None)),
        ((None, 1), (None, None), ("hard", 1)),
        ((2, 1), (3, 2), (2, 1)),
        ((99_999, 99_998), (None, None), ("hard", "soft")),
    ],
)
def test_limits_when_a_task_or_its_sender_chooses_then_are_never_longer_than_its_queues(chosen, own, holds):
    queue = QUEUES[0]
    task = SimpleNamespace(time_limit=own[0], soft_time_limit=own[1])
    of_queue = {"hard": queue.hard_limit_seconds, "soft": queue.soft_limit_seconds}
    limits = module("consumer").effective_limits(queue, chosen, task)
    assert limits == tuple(of_queue.get(limit, limit) for limit in holds)


def test_tasks_outside_the_queues_modules_go_to_the_default_queue():
    route = app.amqp.router.route({}, "celery.chord_unlock")
    assert route["queue"].name == app.contract.celery_name(app.contract.default_queue)


def test_route_when_a_pattern_matches_then_names_the_queue(monkeypatch):
    routes = {"reports.*": QUEUES[-1].name, "*": QUEUES[0].name}
    monkeypatch.setattr(app, "contract", dataclasses.replace(app.contract, routes=routes))

    def routed(name, **options):
        return app.amqp.router.route(options, name)["queue"].name

    assert routed("reports.yearly.draw") == app.contract.celery_name(QUEUES[-1])
    assert routed("mail.send") == app.contract.celery_name(QUEUES[0])
    assert routed(f"{CONTRACT['package']}.tasks.{QUEUES[0].module}.anything") == app.contract.celery_name(QUEUES[0])
    assert routed("mail.send", queue=app.contract.celery_name(QUEUES[-1])) == app.contract.celery_name(QUEUES[-1])


def test_task_when_nothing_routes_it_then_is_refused_if_asked_so(monkeypatch):
    refusing = dataclasses.replace(app.contract, routes={"reports.*": QUEUES[0].name}, refuse_unrouted_tasks=True)
    monkeypatch.setattr(app, "contract", refusing)
    with pytest.raises(errors.UnknownQueueError, match="no pattern of `routes`"):
        app.send_task("mail.send", MessageGroupId="g")
    for name in ("reports.draw", "celery.chord_unlock"):
        assert app.amqp.router.route({}, name)


def test_worker_when_it_serves_several_queues_then_they_are_in_order():
    names = ("urgent", "usual", "slow")
    more = {
        **CONTRACT,
        "queues": [{"name": name} for name in names],
        "workers": [{"name": "both", "queues": ["usual", "urgent"], "concurrency": 7, "tasks_per_child": 9}],
    }
    arguments = worker.worker_arguments(contract.parse(more), "both", "INFO")
    suffix = QUEUES[0].suffix
    expected = {f"--queues=usual{suffix},urgent{suffix}", "--hostname=both@%h", "--concurrency=7"}
    assert {*expected, "--max-tasks-per-child=9"} <= set(arguments)
    (alone,) = (each for each in worker.worker_arguments(contract.parse(more), "slow", "INFO") if "queues" in each)
    assert alone == f"--queues=slow{suffix}"


def test_worker_when_it_is_unknown_then_the_known_ones_are_named():
    with pytest.raises(KeyError, match=app.contract.workers[0].name):
        worker.worker_arguments(app.contract, "no-such-worker", "INFO")


def test_worker_when_started_then_takes_options_of_the_owners_and_of_the_command_line(monkeypatch):
    from celery.bin.worker import worker as command

    started = []
    monkeypatch.setattr(command, "params", [*command.params])
    monkeypatch.setattr(command, "callback", lambda **options: started.append(options))
    monkeypatch.setitem(app.user_options, "worker", {click.Option(["--flavour"])})
    with pytest.raises(SystemExit) as ended:
        worker.start(app.contract.workers[0].name, ["--flavour=sweet", "--concurrency=3", "--include=one,two"])
    assert ended.value.code == 0
    (options,) = started
    assert (options["flavour"], options["concurrency"], options["include"]) == ("sweet", 3, ["one", "two"])


def test_worker_when_started_then_imports_no_other_commands():
    """Nor plugins such as Flower: a start would take twice as long."""
    code = (
        "import sys; from celery.bin import worker as command; from celery_aws import service, worker\n"
        "command.worker.main = lambda *arguments, **more: print(sorted(sys.modules))\n"
        f"service.use({CONTRACT['package']!r}); worker.start({app.contract.workers[0].name!r})"
    )
    variables = {**running.unreachable(app.contract), **PATH}
    output = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert "'celery.bin.worker'" in output.stdout
    assert not {"'celery.bin.celery'", "'celery.bin.amqp'", "'flower'"} & set(output.stdout.strip("[]\n").split(", "))


def test_application_when_tested_without_a_service_then_can_be_built_with_every_option_of_the_contract():
    """Test modules import it."""
    options = {"remote_control": True, "long_delays": True} if support.BROKER == "sqs" else {}
    contract = dataclasses.replace(support.contract, task_metrics=True, tracing=True, **options)
    with mock.patch.dict(os.environ, {**PATH, **running.unreachable(contract)}, clear=True):
        built = build(contract, Settings)
    assert built.contract.task_metrics


def test_missing_environment_variables_are_all_named():
    code = (
        f"from celery_aws import errors\ntry: import {CONTRACT['package']}.celery\n"
        f"except errors.SettingsError as error: print(error)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        env={**PATH, "ENVIRONMENT": "Nonsense!"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    required = {name for name, field in fields().items() if field.is_required()}
    assert {"environment", *(name.lower() for name in results.unreachable(support.contract))} <= required
    assert required & {name.lower() for name in brokers.chosen(support.contract).unreachable(support.contract)}
    for name in required:
        assert name.upper() in output
    assert "Nonsense" not in output


def test_failed_tasks_stay_in_the_queue():
    configuration = app.conf
    assert configuration.task_acks_late
    assert configuration.task_reject_on_worker_lost
    assert configuration.task_acks_on_failure is False
    assert configuration.task_acks_on_timeout is False


def test_no_secret_shows_in_the_configuration():
    shown = str(app.conf.humanize()) + app.connection_for_write().as_uri()
    assert "test/secret" not in shown
    assert "test%2Fsecret" not in shown
