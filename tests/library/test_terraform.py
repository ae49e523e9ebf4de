"""Terraform and the service agree; the tests of the modules, in terraform/, run here."""

from __future__ import annotations

import json
import re

import pytest

from celery_aws.testing import conformance, terraform
from library.support import CONTRACT, PROJECT, broker, fields, module, read_variables

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


def test_pipelines_are_trusted_no_further_than_they_must():
    terraform.run("test", "-no-color", folder=MODULES / "pipeline")


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
        if command.startswith("keys "):
            continue  # Access keys are not an operator's.
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


def test_operator_may_do_what_the_docs_need_and_nothing_else(tested):
    plans = [report for report in tested if report["type"] == "test_plan" and report["@testrun"] == "plan"]
    (policy,) = (
        json.loads(each["change"]["after"]["policy"])
        for each in plans[0]["test_plan"]["resource_changes"]
        if each["address"] == 'aws_iam_policy.this["operator"]'
    )
    allowed = set()
    for statement in policy["Statement"]:
        for resource in listed(statement["Resource"]):
            is_dead = resource.removesuffix(".fifo").endswith("-dlq")
            where = "elsewhere" if resource == "*" else "dead" if is_dead else "queue"
            allowed |= {right(action, where) for action in listed(statement["Action"])}
    assert allowed == documented_rights()


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
