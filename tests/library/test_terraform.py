"""Terraform and the service agree; the tests of the modules, in terraform/, run here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import datetime, timezone

import pytest
from metric_math import evaluate

from celery_aws.testing import conformance, running, terraform
from library.log_patterns import published
from library.support import (
    BROKER,
    CONTRACT,
    PROJECT,
    broker,
    eventually,
    fields,
    module,
    read_variables,
    running_service,
)

app = module("service").app()

TERRAFORM = PROJECT / "terraform"
MODULES = PROJECT / "chassis" / "terraform"
FOLDERS = [TERRAFORM, *(MODULES / name for name in ("service", "bootstrap", "pipeline"))]
SECRETS = {name.lower() for name in conformance.FROM_SECRETS}

# The first `terraform init` loads the provider from the network.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="session", autouse=True)
def initialized():
    """Load the provider; the state is left alone."""
    terraform.need()
    for folder in FOLDERS:
        terraform.initialize(folder)


@pytest.fixture(scope="session")
def tested():
    """Run the tests of the module, once."""
    return terraform.reports(MODULES / "service")


@pytest.fixture(scope="session")
def planned():
    """Return the plan of the whole environment as the owner's root makes it, with a mock provider."""
    return terraform.planned()


def output(planned, name):
    """Return the value of an output, of which nothing may be unknown before an apply."""
    change = planned["output_changes"][name]
    assert change["after_unknown"] is False, change
    return change["after"]


@pytest.fixture(scope="session")
def environment(planned):
    """Return the environment variables that Terraform gives the service."""
    return output(planned, "environment")


def resources(planned, kind):
    return [each["change"]["after"] for each in planned["resource_changes"] if each["type"] == kind]


@pytest.mark.parametrize("folder", [TERRAFORM, MODULES], ids=["root", "modules"])
def test_files_are_formatted(folder):
    assert terraform.run("fmt", "-check", "-recursive", "-diff", folder=folder) == ""


def test_bootstrap_is_valid():
    """The others have tests of their own."""
    terraform.run("validate", "-no-color", folder=MODULES / "bootstrap")


def test_own_tests_of_terraform_pass(tested):
    (summary,) = (report["test_summary"] for report in tested if report["type"] == "test_summary")
    assert summary["passed"] >= 5
    assert summary["failed"] == summary["errored"] == summary["skipped"] == 0


@pytest.fixture(scope="session")
def pipelines():
    """Run the tests of the pipelines' module, once."""
    return terraform.reports(MODULES / "pipeline")


def test_pipelines_are_trusted_no_further_than_they_must(pipelines):
    (summary,) = (report["test_summary"] for report in pipelines if report["type"] == "test_summary")
    assert summary["failed"] == summary["errored"] == summary["skipped"] == 0 < summary["passed"]


OPERATIONS, RUNBOOK = (
    (PROJECT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("operations", "runbook")
)


def right(action, where):
    """Return an action with where it is allowed, which only matters where it is one on queues."""
    return (action, where if action.startswith(broker.QUEUE_RIGHTS) else "elsewhere")


def documented_rights():
    """Return what the tables and command lines of the docs need, each with where: queue, dead, or elsewhere."""
    found = set()
    table = OPERATIONS.partition("need to be allowed")[2]
    for command, cells in re.findall(r"^\| ([a-z ]+) \|(.*)\|$", table, re.MULTILINE):
        if command.startswith("keys ") or command == "queues purge":
            continue  # Access keys are not an operator's, and queues are purged in development only.
        for where, cell in zip(("queue", "dead", *["elsewhere"] * 3), cells.split("|"), strict=False):
            for action in re.findall(r"`([a-z0-9]+:[A-Za-z]+)`", cell):
                found.add(right(action, where))
    for block in re.findall(r"```sh\n(.*?)```", RUNBOOK, re.DOTALL):
        for service, command in re.findall(r"\baws ([a-z]+) ([a-z-]+)", block):
            found.add((f"{service}:{''.join(word.capitalize() for word in command.split('-'))}", "elsewhere"))
    return found


def listed(value):
    """Return what IAM writes as one text where it is alone."""
    return [value] if isinstance(value, str) else value


def plan_of(reports, run):
    """Return the plan of a run of a module's tests."""
    return next(each["test_plan"] for each in reports if each["type"] == "test_plan" and each["@testrun"] == run)


def test_operator_may_do_what_the_docs_need_and_nothing_else(tested):
    (policy,) = (
        json.loads(each["change"]["after"]["policy"])
        for each in plan_of(tested, "plan" if BROKER == "rabbitmq" else "remote_control")["resource_changes"]
        if each["address"] == 'aws_iam_policy.this["operator"]'
    )
    allowed = set()
    for statement in policy["Statement"]:
        for resource in listed(statement["Resource"]):
            is_dead = resource.removesuffix(".fifo").endswith("-dlq")
            where = "elsewhere" if resource == "*" else "dead" if is_dead else "queue"
            allowed |= {right(action, where) for action in listed(statement["Action"])}
    assert allowed == documented_rights()


PARLIAMENT = ("tool", "run", "--quiet", "--from", "parliament==1.6.4", "--with", "setuptools<81", "parliament")
"""Not among the requirements: what it needs would be in the way of others."""

EXPLAINED = {
    "ecs:ListTasks",  # Limited by a condition: it has no resources of its own.
    "Unknown action mq:DeleteConfiguration",  # Newer than the linter.
    "logs:GetQueryResults",  # The linter expects a log group, but the request names only a query.
}
WILDCARDS = {"RESOURCE_MISMATCH", "RESOURCE_STAR"}
"""Of the pipelines' roles: all actions on the service's resources include some on others, and a plan reads all."""


def policies(reports):
    """Return the policies of the first plan of a module's tests that has whole ones; a mock provider makes none."""
    for plan in (each["test_plan"] for each in reports if each["type"] == "test_plan"):
        changes = [each["change"]["after"] or {} for each in plan["resource_changes"]]
        found = [after["policy"] for after in changes if isinstance(after.get("policy"), str)]
        if found and all(policy.startswith("{") for policy in found):
            return [policy for policy in found if "Statement" in json.loads(policy)]
    raise AssertionError("no plan has policies")


def is_open(policy):
    """Tell whether a resource's policy lets in everybody, or a service of AWS on anybody's behalf.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html
    """
    for statement in json.loads(policy)["Statement"]:
        if statement["Effect"] == "Allow":
            who = statement["Principal"]
            if who == "*" or "*" in listed(who.get("AWS", [])):
                return True
            limits = {key for keys in statement.get("Condition", {}).values() for key in keys}
            if "Service" in who and limits.isdisjoint({"aws:SourceAccount", "aws:SourceArn"}):
                return True
    return False


def linted(policies, folder):
    """Return what a linter of policies finds."""
    folder.mkdir()
    for number, policy in enumerate(policies):
        (folder / f"{number}.json").write_text(policy)
    command = [sys.executable, "-m", "uv", *PARLIAMENT, "--directory", str(folder), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def is_explained(finding):
    detail = finding["detail"]
    return EXPLAINED.issuperset([detail] if isinstance(detail, str) else detail)


def test_policies_when_linted_then_nothing_is_unexplained(tested, pipelines, tmp_path):
    mistake = {"Effect": "Allow", "Action": "sqs:SendMesage", "Resource": "*"}
    found = linted([json.dumps({"Version": "2012-10-17", "Statement": [mistake]})], tmp_path / "mistake")
    if not found and not os.environ.get("CI"):
        pytest.skip("the linter of policies cannot be had on this machine just now")
    assert [each["issue"] for each in found] == ["UNKNOWN_ACTION"]
    found = linted(policies(tested), tmp_path / "service")
    found += [each for each in linted(policies(pipelines), tmp_path / "pipelines") if each["issue"] not in WILDCARDS]
    assert [each for each in found if not is_explained(each)] == []


def test_resource_policies_when_planned_then_are_open_to_nobody(tested):
    whole = [policy for policy in policies(tested) if "Principal" in policy]
    made = {"s3": CONTRACT["results"] == "s3", "sns": True, "sqs": CONTRACT["broker"] != "rabbitmq"}
    about = {listed(each["Resource"])[0].split(":")[2] for policy in whole for each in json.loads(policy)["Statement"]}
    assert about >= {service for service, is_made in made.items() if is_made}
    assert [policy for policy in whole if is_open(policy)] == []


@pytest.mark.parametrize(
    "allowed",
    [
        {"Principal": "*"},
        {"Principal": {"AWS": "*"}, "Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        {"Principal": {"Service": "cloudwatch.amazonaws.com"}},
    ],
)
def test_resource_policy_when_open_then_is_found(allowed):
    assert is_open(json.dumps({"Statement": [{"Effect": "Allow", "Action": "sns:Publish", **allowed}]}))


def test_service_gets_the_environment_it_reads(environment, monkeypatch):
    read = set(fields()) - SECRETS
    assert {name.lower() for name in environment} == read | {"aws_default_region"}
    assert environment["AWS_DEFAULT_REGION"] == CONTRACT["region"]
    given = {name.lower(): value for name, value in environment.items()}
    for name, value in {**given, **dict.fromkeys(SECRETS, "sixteen characters")}.items():
        monkeypatch.setenv(name.upper(), value)
    read_variables()


@pytest.fixture(scope="session")
def queues(planned):
    """Return the names of the queues, as Terraform says."""
    return output(planned, "queues")


def test_queues_are_those_that_the_service_uses(queues):
    contract = app.contract
    assert queues == {
        queue.name: {
            "queue": contract.queue_name(queue, "staging"),
            "dead_letters": contract.dead_letter_queue_name(queue, "staging"),
        }
        for queue in contract.queues
    }


def test_every_queue_is_watched_by_alarms_of_its_own(planned, queues):
    watched = {
        value
        for alarm in resources(planned, "aws_cloudwatch_metric_alarm")
        for dimensions in [
            alarm["dimensions"] or {},
            *(metric["dimensions"] or {} for query in alarm["metric_query"] for metric in query["metric"]),
        ]
        for name, value in dimensions.items()
        if name in ("QueueName", "Queue")
    }
    assert watched == {name for both in queues.values() for name in both.values()}


def test_alarms_when_planned_then_link_sections_of_the_runbook(planned):
    sections = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE)
    }
    alarms = [alarm for alarm in resources(planned, "aws_cloudwatch_metric_alarm") if alarm["ok_actions"]]
    linked = {alarm["alarm_description"].partition("docs/runbook.md#")[2] for alarm in alarms}
    assert linked
    assert linked <= sections


def test_alarms_when_planned_then_read_as_many_metrics_as_cost_counts(planned):
    read = 0
    for alarm in resources(planned, "aws_cloudwatch_metric_alarm"):
        read += max(1, sum(len(query["metric"]) for query in alarm["metric_query"]))
    for kind, configuration in (
        ("aws_appautoscaling_policy", "target_tracking_scaling_policy_configuration"),
        ("aws_autoscaling_policy", "target_tracking_configuration"),
    ):
        for policy in resources(planned, kind):
            for tracking in policy[configuration] or ():
                metrics = tracking["customized_metric_specification"][0]["metrics"]
                read += 2 * sum(len(metric["metric_stat"]) for metric in metrics)
    environment = module("cost.environment")
    assert environment.alarm_metrics(app.contract, environment.Environment()) == read


def test_metrics_of_tasks_when_planned_then_are_as_many_as_cost_counts(tested):
    environment = module("cost.environment")
    plan = plan_of(tested, "task_metrics")
    filters = [each["metric_transformation"][0] for each in resources(plan, "aws_cloudwatch_log_metric_filter")]
    by = [sorted(metric["dimensions"]) for metric in filters]
    assert by.count(["Queue", "Task"]) == environment.METRICS_OF_TASK
    assert by.count(["Queue"]) == environment.METRICS_OF_QUEUE
    read = [
        each["change"]["after"]
        for each in plan["resource_changes"]
        if re.match(r"aws_cloudwatch_metric_alarm\.(failing|slow)_tasks", each["address"])
    ]
    metrics = sum(max(1, sum(len(query["metric"]) for query in alarm["metric_query"] or ())) for alarm in read)
    assert metrics == environment.ALARM_METRICS_OF_QUEUE * len(CONTRACT["queues"])


def test_alarm_on_failures_when_attempts_are_few_then_does_not_count_them(tested):
    (query, *_) = (
        query
        for alarm in resources(plan_of(tested, "task_metrics"), "aws_cloudwatch_metric_alarm")
        for query in alarm["metric_query"] or ()
        if query["id"] == "percent" and "attempts" in query["expression"]
    )
    attempts = [None, 1.0, 9.0, 10.0, 10.0, 50.0]
    failed = [None, 1.0, 9.0, None, 3.0, 50.0]
    assert evaluate(query["expression"], {"attempts": attempts, "failed": failed}) == [None, 0, 0, 0, 30, 100]


def test_secrets_when_planned_then_are_as_many_as_cost_counts(planned):
    environment = module("cost.environment")
    prices = module("cost").read_prices(app.contract)["prices"]
    lines = environment.environment_lines(app.contract, environment.Environment(), prices)
    counted = sum(line.count for line in lines if line.what == "secrets")
    assert counted == len(resources(planned, "aws_secretsmanager_secret"))


# Schedules: the message that Terraform has EventBridge Scheduler send is the one that the service would send.

DUE = datetime(2027, 1, 31, 6, 30, tzinfo=timezone.utc)

on_sqs = pytest.mark.skipif(BROKER != "sqs", reason="on RabbitMQ, the service itself sends")


@pytest.fixture(scope="session")
def scheduled(tested):
    """Return the schedules of the contract of that run, each with what is planned."""
    if BROKER != "sqs":
        return []
    planned = {each["name"]: each for each in resources(plan_of(tested, "schedules"), "aws_scheduler_schedule")}
    text = (MODULES / "service" / "tests" / "schedules.json").read_text(encoding="utf-8")
    name = CONTRACT["queues"][0]["name"]
    text = text.replace("${queue}", name).replace('${replace(queue, "-", "_")}', name.replace("-", "_"))
    contract = module("contract").parse({**CONTRACT, "schedules": json.loads(text)})
    assert module("contract").problems({**CONTRACT, "schedules": json.loads(text)}) == []
    assert planned.keys() == {each.name for each in contract.schedules}
    return [(contract, schedule, planned[schedule.name]) for schedule in contract.schedules]


def request_of(plan):
    """Return the SendMessage request of a schedule, as EventBridge Scheduler makes it."""
    text = plan["target"][0]["input"].replace("<aws.scheduler.scheduled-time>", "2027-01-31T06:30:00Z")
    assert "<aws" not in text
    request = json.loads(text)
    return request, json.loads(request["MessageBody"])


@on_sqs
def test_schedule_when_planned_then_has_the_expression_of_the_contract(scheduled):
    expression_of = module("contract.schedules").expression_of
    assert {schedule.name: plan["schedule_expression"] for _, schedule, plan in scheduled} == {
        schedule.name: expression_of(schedule) for _, schedule, _ in scheduled
    }


@on_sqs
def test_message_when_planned_then_is_the_one_that_the_service_sends(scheduled, monkeypatch):
    sent = []
    transport, batching = module("brokers.sqs.transport"), module("brokers.sqs.batching")
    monkeypatch.setattr(
        transport.Channel, "_put", lambda self, queue, message, **rest: sent.append(batching.entry(queue, message))
    )
    for contract, schedule, plan in scheduled:
        module("schedules").send(app, schedule, DUE)
        request, planned = request_of(plan)
        expected = sent.pop()
        own = json.loads(expected.pop("MessageBody"))
        del request["MessageBody"]
        assert request.pop("QueueUrl").endswith(f"/{contract.queue_name(contract.queue_of(schedule), 'staging')}")
        assert request == expected
        for message in (own, planned):
            message["body"] = json.loads(message["body"])
            for name in ("argsrepr", "kwargsrepr", "origin"):  # Of no use to a worker.
                message["headers"].pop(name, None)
            for name in ("reply_to", "delivery_tag"):
                del message["properties"][name]
        assert planned == own, schedule.name


@on_sqs
def test_message_when_planned_then_a_worker_runs_it_with_the_time_it_was_due(scheduled, tmp_path):
    (plan,) = (plan for _, schedule, plan in scheduled if schedule.name == "hourly")
    request, message = request_of(plan)
    with running.running_service(tmp_path) as service:
        service.client("sqs").send_message(**{**request, "QueueUrl": service.url()})
        service.start_worker()
        assert running.eventually(lambda: '"outcome": "succeeded"' in service.log())
        if CONTRACT["results"] != "none":
            with service.reached():
                assert service.app.AsyncResult(message["headers"]["id"]).get(timeout=10) == "2027-01-31T06:30:00Z"


# Metrics of tasks: what the planned filters publish for the lines that a worker logs.

ENDED = {"tasks-Age", "tasks-Duration", "queues-Duration"}
PUBLISHED = {
    "succeeded": {*ENDED, "tasks-Succeeded"},
    "retrying": {*ENDED, "tasks-Retrying", "queues-Failed"},
    "dead_lettered": {*ENDED, "tasks-DeadLettered", "queues-Failed"},
    "rejected": {*ENDED, "tasks-DeadLettered", "queues-Failed"},
    "retry_requested": ENDED,
    "ignored": ENDED,
    "revoked": set(),  # It had expired before it began.
    "interrupted": {"tasks-Age"},
}


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """Return the last log line about a task for each outcome, of a worker that has run some, and its queue."""
    folder = tmp_path_factory.mktemp("attempts")
    with running_service(tmp_path_factory.mktemp("logs"), 20, max_receive_count=2) as service:
        service.start_worker()
        assert service.ready(), service.log()
        for name, *more in (("leave_trace",), ("end_with", "Hidden"), ("end_with", "Reject"), ("retry_in", 0)):
            service.send(name, str(folder), *more)
        service.send("ignore")
        service.send("leave_trace", str(folder), expires=0.001)

        def lines():
            read = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
            return {line["outcome"]: line for line in read if "outcome" in line}

        assert eventually(lambda: lines().keys() >= PUBLISHED.keys() - {"interrupted"}), service.log()
        stopped = {**lines()["succeeded"], "outcome": "interrupted"}
        return {**lines(), "interrupted": stopped}, service.contract.celery_name(service.queue)


@pytest.mark.end_to_end
def test_task_metrics_when_an_attempt_ends_then_are_those_of_its_outcome(tested, attempts):
    lines, queue = attempts
    plan = plan_of(tested, "task_metrics")
    filters = {each["name"]: each for each in resources(plan, "aws_cloudwatch_log_metric_filter")}
    alarms = [each for each in resources(plan, "aws_cloudwatch_metric_alarm") if each["metric_name"] == "Duration"]
    assert queue in {alarm["dimensions"]["Queue"] for alarm in alarms}

    def metrics(line):
        every = {
            name: published(each["metric_transformation"][0], each["pattern"], line) for name, each in filters.items()
        }
        return {name: metric for name, metric in every.items() if metric}

    for outcome, expected in PUBLISHED.items():
        line = lines[outcome]
        found = metrics(line)
        assert found.keys() == expected, line
        for name, (dimensions, value) in found.items():
            by_task = {"Task": line["task"]} if name.startswith("tasks-") else {}
            assert dimensions == {"Queue": queue, **by_task}
            field = {"Age": "age_seconds", "Duration": "duration_seconds"}.get(name.partition("-")[2])
            assert value == (line[field] if field else 1)
        assert metrics({**line, "logger": "acme_jobs.tasks.high"}) == {}
    assert metrics({name: value for name, value in lines["succeeded"].items() if name != "outcome"}) == {}
    # A message that names no task counts for its queue alone.
    nameless = {name: value for name, value in lines["dead_lettered"].items() if name != "task"}
    assert metrics(nameless).keys() == {"queues-Duration", "queues-Failed"}
