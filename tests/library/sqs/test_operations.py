"""The commands in the docs, run as they stand; and what docs/operations.md says they need to be allowed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from library.commands import OPERATIONS, Commands, command_of, documented, make_user, working_folder
from library.sqs.messages import celery_body, put
from library.support import CONTRACT, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

ACTIONS = {
    "HeadBucket": "ListBucket",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    **{f"{name}Batch": name for name in ("SendMessage", "DeleteMessage", "ChangeMessageVisibility")},
}
"""Operations whose permission has another name."""

IMPLIED = {
    ("dead", "sqs:ReceiveMessage"),
    ("dead", "sqs:DeleteMessage"),
    ("dead", "sqs:GetQueueAttributes"),
    ("queue", "sqs:SendMessage"),
}
"""The permissions of a redrive, besides the one to start it.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-configure-dead-letter-queue-redrive.html
"""

RECORDING = Path(__file__).parents[1] / "recording"
"""Has Python note every request to AWS."""

RARE = {
    "keys rotate": {("elsewhere", "iam:DeleteAccessKey")},
    "doctor": {("elsewhere", "scheduler:GetSchedule")},
}
"""What is done only when something fails, or at AWS, where there are schedules."""


def arn_of_dead_letters(service):
    """Return the ARN of a queue, created by hand, that is the dead-letter queue of `celery`."""
    sqs = service.client("sqs")
    url = sqs.create_queue(QueueName="celery-dlq")["QueueUrl"]
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


@pytest.fixture(scope="module")
def run_all(tmp_path_factory):
    """Run every command line of the docs; return how each ended, and the requests they made."""
    folder = working_folder(tmp_path_factory.mktemp("here"))
    notes = folder / "calls"
    outcomes = []
    schedule = {
        "name": "nightly",
        "task": "x.y",
        "queue": CONTRACT["queues"][0]["name"],
        "cron": "30 6 * * *",
        "group": "g",
    }
    extra = {"long_delays": True, "remote_control": True, "schedules": [schedule]}
    with running_service(tmp_path_factory.mktemp("logs"), **extra) as service:
        make_user(service)
        service.send("stay", "/tmp", 0, countdown=10**6, task_id="2f1c9a44-0000-4000-8000-000000000000")
        unsent = {"QueueUrl": service.url(), "MessageBody": celery_body(9, "x.y"), "MessageGroupId": "g"}
        if service.queue.fifo:
            unsent["MessageDeduplicationId"] = "9"
        dead_letters = service.contract.schedule_dead_letter_queue_name("development")
        dead_letters = service.client("sqs").get_queue_url(QueueName=dead_letters)["QueueUrl"]
        service.client("sqs").send_message(QueueUrl=dead_letters, MessageBody=json.dumps(unsent))
        # Which the docs adopt.
        policy = {"deadLetterTargetArn": arn_of_dead_letters(service), "maxReceiveCount": 5}
        service.client("sqs").create_queue(QueueName="celery", Attributes={"RedrivePolicy": json.dumps(policy)})
        commands = Commands(service)
        path = os.pathsep.join((str(RECORDING), commands.environment["PYTHONPATH"]))
        messages = [celery_body(n, f"x.tasks.{service.queue.name}.send_invoice") for n in range(3)]
        messages.append(messages[0].replace("00000000-aaaa", "2f1c9a44-bbbb"))
        answers = f"n\n{service.queue_name(dead=True)}\n"
        for line in documented():
            if "--cancel" not in line and "--status" not in line:
                put(service, [message.replace("argument", line[-40:].replace('"', "")) for message in messages])
            status, said = commands.typed(line, folder, answers, PYTHONPATH=path, RECORD_CALLS=str(notes))
            outcomes.append((line, status, said))
        calls = [json.loads(call) for call in notes.read_text(encoding="utf-8").splitlines()]
    return outcomes, calls


@pytest.mark.timeout(400)
def test_every_command_of_the_docs_runs_as_it_stands(run_all):
    outcomes, _ = run_all
    assert len(outcomes) >= 20
    wrong = [
        (line, status, said)
        for line, status, said in outcomes
        # The doctor finds no worker here, lists and queues find what was put there.
        if "Traceback" in said
        or status not in ((0, 1) if re.search(r" (list|doctor|queues|keys|export|unsent)\b", line) else (0,))
    ]
    assert not wrong


@pytest.mark.timeout(400)
def test_table_of_rights_is_what_the_commands_ask_for(run_all):
    _, calls = run_all
    used = {}
    for call in calls:
        if "worker" in call["arguments"]:  # Asked with a worker's credentials.
            continue
        command = command_of(call["arguments"])
        action = f"{call['service']}:{ACTIONS.get(call['operation'], call['operation'])}"
        if action == "sts:GetCallerIdentity":
            continue
        used.setdefault(command, set()).add((call["where"], action))
        if action == "sqs:StartMessageMoveTask":
            used[command] |= IMPLIED
    table = OPERATIONS.partition("need to be allowed")[2]
    rows = re.findall(r"^\| ([a-z ]+) \|(.*?)\|(.*?)\|(.*?)\|$", table, re.MULTILINE)
    allowed = {
        command: {
            (where, action)
            for where, cell in zip(("queue", "dead", "elsewhere"), cells, strict=True)
            for action in re.findall(r"`([^`]+)`", cell)
        }
        for command, *cells in rows
        if command != "command"
    }
    assert allowed.pop("cost") == allowed.pop("contract") == set()
    del allowed["console"]  # No page was opened.
    del allowed["schedules list"]  # With --environment, which tests/test_terraform.py tries: the emulator has no group.
    for command, permissions in RARE.items():
        if command in used:
            used[command] |= permissions
    assert allowed.keys() == used.keys()
    assert {
        command: permissions ^ used[command] for command, permissions in allowed.items() if permissions != used[command]
    } == {}
