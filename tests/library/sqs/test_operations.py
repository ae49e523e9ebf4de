"""The commands in the docs, run as they stand; and what docs/operations.md says they need to be allowed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from library.commands import OPERATIONS, Commands, command_of, documented, make_user
from library.sqs.messages import celery_body, put
from library.support import running_service

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
}
"""What is done only when something fails."""


@pytest.fixture(scope="module")
def run_all(tmp_path_factory):
    """Run every command line of the docs; return how each ended, and the requests they made."""
    folder = tmp_path_factory.mktemp("here")
    notes = folder / "calls"
    outcomes = []
    with running_service(tmp_path_factory.mktemp("logs")) as service:
        make_user(service)
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
        or status not in ((0, 1) if re.search(r" (list|doctor|queues|keys|export)\b", line) else (0,))
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
    assert allowed.pop("cost") == set()
    for command, permissions in RARE.items():
        if command in used:
            used[command] |= permissions
    assert allowed.keys() == used.keys()
    assert {
        command: permissions ^ used[command] for command, permissions in allowed.items() if permissions != used[command]
    } == {}
