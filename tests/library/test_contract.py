"""The contract holds, and everything that follows from it is there."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from celery_aws.dev import brokers, results, timeouts
from library import support
from library.support import CONTRACT, PATH, PROJECT, fields, module, tasks_of

contract = module("contract")
app = module("service").app()
cli = module("cli")
settings = module("settings")
worker = module("worker")

QUEUES = app.contract.queues


def changed(**values):
    data = json.loads(json.dumps(CONTRACT))
    for name, value in values.items():
        (data if name in data else data["queues"][0])[name] = value
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
        for queue in CONTRACT["queues"]:
            assert f" {queue['name']} |" in said
            assert f" {queue['visibility_timeout_seconds']} |" in said


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


def test_a_contract_that_is_no_json_is_reported_as_such(tmp_path):
    wrong = tmp_path / "contract.json"
    wrong.write_text("{")
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
    arguments = worker.worker_arguments(app.contract, queue.name, "INFO")
    assert f"--queues={route['queue'].name}" in arguments


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


def test_worker_of_an_unknown_queue_is_refused_with_the_known_ones():
    with pytest.raises(KeyError, match=QUEUES[0].name):
        worker.worker_arguments(app.contract, "no-such-queue", "INFO")


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
    assert required & {name.lower() for name in brokers.chosen(support.contract).UNREACHABLE}
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
