"""Queues that exist already: their names, what they hold, and what `adopt` proposes for them."""

from __future__ import annotations

import dataclasses
import json
import os
from unittest import mock

import pytest
from celery import Celery
from click.testing import CliRunner
from kombu import Queue

from celery_aws.contract import effective, problems
from library.support import CONTRACT, IS_FIFO, eventually, module, notes, running_service

SUFFIX = ".fifo" if IS_FIFO else ""
NAMES = {"queue_name": f"Old_queue-{{environment}}{SUFFIX}", "dead_letter_queue_name": f"Old_dead{SUFFIX}"}


@pytest.fixture(scope="module")
def existing(tmp_path_factory):
    """Run the service on a queue with a name of its own, without a worker."""
    queues = [{**CONTRACT["queues"][0], **NAMES}, *CONTRACT["queues"][1:]]
    with running_service(tmp_path_factory.mktemp("logs"), queues=queues) as service:
        yield service


def run(service, *arguments):
    with mock.patch.dict(os.environ, service.environment):
        return CliRunner().invoke(module("cli").main, [*arguments, "--environment", "development"])


def create(service, name, **attributes):
    """Create a queue by hand, with a dead-letter queue; return its URL."""
    sqs = service.client("sqs")
    kind = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
    dead = sqs.create_queue(QueueName=f"dead-{name}", Attributes=kind)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 7})
    return sqs.create_queue(QueueName=name, Attributes={**kind, **attributes, "RedrivePolicy": policy})["QueueUrl"]


def send_as_stock_celery(service, task, args):
    """Send a task as an application of Celery alone does, in base64 twice."""
    url = service.url()
    name = service.contract.celery_name(service.queue)
    app = Celery("old", broker="sqs://")
    app.conf.broker_transport_options = {"region": "eu-west-1", "predefined_queues": {name: {"url": url}}}
    app.conf.update(task_queues=[Queue(name, no_declare=True)], task_default_queue=name)
    with service.reached(), app.connection_for_write() as connection:
        app.send_task(task, args, connection=connection, MessageGroupId="g")


@pytest.mark.end_to_end
def test_worker_when_its_queue_exists_already_then_works_on_what_it_holds(existing, tmp_path):
    assert existing.url().endswith(f"/Old_queue-development{SUFFIX}")
    send_as_stock_celery(existing, "library.probes.leave_trace", [str(tmp_path)])
    existing.send("leave_trace", str(tmp_path))
    existing.start_worker()
    assert eventually(lambda: len(notes(tmp_path)) == 2), existing.log()
    assert eventually(lambda: existing.waiting() == 0)
    existing.send("leave_trace", str(tmp_path), str(tmp_path))
    assert eventually(lambda: existing.dead() == 1), existing.log()
    listed = run(existing, "dlq", "list", existing.queue.name)
    assert "library.probes." in listed.output, listed.output


def test_adopt_when_a_queue_exists_then_proposes_an_entry_that_holds(existing):
    name = f"orders_High-development{SUFFIX}"
    url = create(existing, name, VisibilityTimeout="900", MessageRetentionPeriod="1000000")
    printed = run(existing, "adopt", name, url, "--json")
    assert printed.exit_code == 0, printed.output
    entry, same = json.loads(printed.output)
    assert entry == same
    wanted = {
        "name": "orders-high-development",
        "queue_name": f"orders_High-{{environment}}{SUFFIX}",
        "dead_letter_queue_name": f"dead-orders_High-{{environment}}{SUFFIX}",
        "visibility_timeout_seconds": 900,
        "retention_seconds": 1_000_000,
        "max_receive_count": 7,
    }
    assert entry == wanted
    whole = {**CONTRACT, "queues": [*CONTRACT["queues"], entry]}
    assert problems(whole) == []
    assert effective(whole)["queues"][-1]["fifo"] is IS_FIFO


def test_adopt_when_a_rule_is_broken_then_says_so_and_prints_import_blocks(existing):
    url = create(existing, f"short{SUFFIX}", VisibilityTimeout="30")
    printed = run(existing, "adopt", f"short{SUFFIX}")
    assert printed.exit_code == 0, printed.output
    assert f'to = module.service.aws_sqs_queue.main["short"]\n  id = "{url}"' in printed.output
    assert "visibility_timeout_seconds must be at least" in printed.output


def test_adopt_when_terraform_would_take_something_then_says_so(existing):
    statement = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    create(existing, f"shared{SUFFIX}", VisibilityTimeout="900", DelaySeconds="7", Policy=json.dumps(policy))
    printed = run(existing, "adopt", f"shared{SUFFIX}")
    assert "queue shared loses its access policy" in printed.output
    assert "queue shared loses its delay of 7 s" in printed.output


def test_adopt_when_queues_share_a_dead_letter_queue_then_says_so(existing):
    sqs = existing.client("sqs")
    create(existing, f"first{SUFFIX}", VisibilityTimeout="900")
    dead = sqs.get_queue_url(QueueName=f"dead-first{SUFFIX}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    kind = {"FifoQueue": "true"} if IS_FIFO else {}
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 7})
    sqs.create_queue(QueueName=f"second{SUFFIX}", Attributes={**kind, "RedrivePolicy": policy})
    printed = run(existing, "adopt", f"first{SUFFIX}")
    assert f"its dead-letter queue together with second{SUFFIX}" in printed.output


def test_adopt_when_a_queue_has_no_dead_letter_queue_then_says_so(existing):
    kind = {"FifoQueue": "true"} if IS_FIFO else {}
    existing.client("sqs").create_queue(QueueName=f"{existing.queue.name}{SUFFIX}", Attributes=kind)
    printed = run(existing, "adopt", f"{existing.queue.name}{SUFFIX}")
    assert f"queue {existing.queue.name} has no dead-letter queue" in printed.output
    assert "is in the contract already" in printed.output


def test_adopt_when_it_is_a_dead_letter_queue_then_says_so(existing):
    create(existing, f"source{SUFFIX}")
    printed = run(existing, "adopt", f"dead-source{SUFFIX}")
    assert f"queue dead-source is the dead-letter queue of source{SUFFIX}" in printed.output, printed.output


def test_adopt_when_names_resemble_each_other_then_proposes_valid_ones(existing):
    names = ["celery", "celery-2", "Celery", "x_dlq", "import", "a" * 60]
    for name in names:
        create(existing, f"{name}{SUFFIX}", VisibilityTimeout="900")
    printed = run(existing, "adopt", *(f"{name}{SUFFIX}" for name in (*names, "celery")), "--json")
    entries = json.loads(printed.output)
    proposed = ["celery", "celery-2", "celery-3", "x-dlq-tasks", "import-tasks", "a" * 24, "celery"]
    assert [entry["name"] for entry in entries] == proposed
    found = problems({**CONTRACT, "queues": entries[:-1], "workers": []})
    assert [problem for problem in found if problem.field == "name"] == []


def test_adopt_when_an_unmanaged_queue_has_no_dead_letters_then_asks_for_one():
    advice = module("cli.sqs.adopt")._without_dead_letters
    assert "Terraform" in advice({"name": "mine"})
    assert "dead_letter_queue_name" in advice({"name": "theirs", "managed": False})


@pytest.mark.parametrize(("managed", "is_dead"), [(True, True), (False, False), (False, True)])
def test_doctor_when_a_queue_is_missing_then_gives_a_remedy_that_helps(existing, managed, is_dead):
    doctor, environment = module("doctor.sqs"), module("environment.sqs")
    missing = {("dead_letter_queue_name" if is_dead else "queue_name"): f"missing{SUFFIX}"}
    queue = dataclasses.replace(existing.queue, managed=managed, **missing)
    contract = dataclasses.replace(existing.contract, queues=(queue, *existing.contract.queues[1:]))
    with existing.reached():
        found = list(doctor.findings(environment.Environment(contract, "development"), "operator"))
    (advice,) = (each.advice for each in found if each.code == ("D202" if is_dead else "D201") and not each.is_well)
    assert advice == ("apply Terraform" if managed else doctor.CREATE[is_dead])


def test_adopt_when_there_is_no_such_queue_then_says_so(existing):
    printed = run(existing, "adopt", "no-such-queue")
    assert printed.exit_code == 2
    assert "Traceback" not in printed.output
    assert printed.output.startswith("Error: queue no-such-queue cannot be read"), printed.output


def test_url_when_the_queue_is_of_another_account_then_names_that(existing):
    of_others = dataclasses.replace(existing.queue, account="999999999999")
    base = "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/123456789012"
    url = existing.contract.queue_url(of_others, base, "staging")
    assert url == f"https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/999999999999/Old_queue-staging{SUFFIX}"
    assert existing.contract.queue_url(existing.queue, base, "staging").startswith(f"{base}/")


def test_doctor_when_a_queue_is_not_managed_then_tells_to_ask_its_owner(existing):
    doctor, environment = module("doctor.sqs"), module("environment.sqs")
    queue = dataclasses.replace(existing.queue, managed=False, visibility_timeout_seconds=901, retention_seconds=1_234)
    contract = dataclasses.replace(existing.contract, queues=(queue, *existing.contract.queues[1:]))
    with existing.reached():
        found = list(doctor.findings(environment.Environment(contract, "development"), "operator"))
    wrong = {finding.code: finding.advice for finding in found if finding.is_well is False}
    assert wrong["D204"] == doctor.ASK_OWNER
    assert "D203" not in wrong
