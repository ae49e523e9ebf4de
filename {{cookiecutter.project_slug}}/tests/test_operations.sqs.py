"""The commands in the docs, run as they stand; and what docs/operations.md says they need to be allowed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import boto3
import pytest

from tests.commands import Commands
from tests.letters import celery_body, put
from tests.support import CONTRACT, PROJECT, module, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

OPERATIONS = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
RUNBOOK = (PROJECT / "docs" / "runbook.md").read_text(encoding="utf-8")
README = (PROJECT / "README.md").read_text(encoding="utf-8")
OTHERS = ("worker", "send", "health", "contract")
"""Commands that are no on-call commands."""

ACTIONS = {
    "HeadBucket": "ListBucket",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    **{f"{name}Batch": name for name in ("SendMessage", "DeleteMessage", "ChangeMessageVisibility")},
}
"""Operations whose right is called otherwise."""

IMPLIED = {
    ("dead", "sqs:ReceiveMessage"),
    ("dead", "sqs:DeleteMessage"),
    ("dead", "sqs:GetQueueAttributes"),
    ("queue", "sqs:SendMessage"),
}
"""What a redrive needs beside the right to start it.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-configure-dead-letter-queue-redrive.html
"""


RARE = {
    "keys rotate": {("elsewhere", "iam:DeleteAccessKey")},
}
"""What is done only when something fails."""


def examples():
    """Return the on-call command lines of the docs."""
    found = []
    for text in (OPERATIONS, RUNBOOK, README):
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
            lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
            found += [line for line in lines if line.startswith(f"{CONTRACT['service']} ")]
    return [line for line in found if line.split()[1] not in OTHERS]


@pytest.fixture(scope="module")
def run_all(tmp_path_factory):
    """Run every command line of the docs; return how each ended, and the requests they made."""
    folder = tmp_path_factory.mktemp("here")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    command = bin_folder / CONTRACT["service"]
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {CONTRACT["package"]} "$@"\n')
    command.chmod(0o755)
    notes = folder / "calls"
    outcomes = []
    with running_service(tmp_path_factory.mktemp("logs")) as service:
        make_user(service)
        environment = dict(Commands(service).environment)
        environment["PATH"] = f"{bin_folder}{os.pathsep}{environment['PATH']}"
        recording = PROJECT / "tests" / "recording"
        environment["PYTHONPATH"] = os.pathsep.join((str(recording), environment["PYTHONPATH"]))
        environment["RECORD_CALLS"] = str(notes)
        letters = [celery_body(n, f"x.tasks.{service.queue.name}.count_words") for n in range(3)]
        letters.append(letters[0].replace("00000000-aaaa", "2f1c9a44-bbbb"))
        name = service.url(dead=True).rpartition("/")[2]
        for line in examples():
            if "--cancel" not in line and "--status" not in line:
                put(service, [letter.replace("argument", line[-40:].replace('"', "")) for letter in letters])
            running = subprocess.Popen(
                f"exec {line}",
                shell=True,
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if "--watch" in line:
                time.sleep(6)
                running.send_signal(signal.SIGINT)
            said, _ = running.communicate(f"n\n{name}\n", timeout=90)
            outcomes.append((line, running.returncode, said))
        calls = [json.loads(call) for call in notes.read_text(encoding="utf-8").splitlines()]
    return outcomes, calls


def make_user(service):
    """Make what the commands for access keys look at."""
    name = f"{CONTRACT['service']}-development-worker"
    if CONTRACT["credentials"] == "keys":
        for kind in ("iam", "secretsmanager"):
            client = boto3.client(
                kind,
                endpoint_url=service.environment["AWS_ENDPOINT_URL"],
                region_name=service.contract.region,
                aws_access_key_id="x",
                aws_secret_access_key="x",
            )
            if kind == "iam":
                client.create_user(UserName=name)
                client.create_access_key(UserName=name)
            else:
                client.create_secret(Name=name)


def test_every_command_has_an_example():
    ops = module("ops")
    commands = {
        f"{name} {sub}" if sub else name for name in ops.names() for sub in getattr(ops.load(name), "commands", [""])
    }
    shown = {" ".join(line.split()[1 : 3 if line.split()[1] in ("dlq", "keys") else 2]) for line in examples()}
    assert shown == commands
    assert all(f"{CONTRACT['service']} {name}" in OPERATIONS for name in commands)


def test_help_of_every_command_has_an_example_that_parses():
    ops = module("ops")
    for name in ops.names():
        command = ops.load(name)
        for sub in getattr(command, "commands", {"": command}).values():
            assert sub.examples, name
            for example in sub.examples:
                words = shlex.split(example)
                assert words[0] == name
                sub.make_context(name, [*words[1 if sub is command else 2 :], *needed(sub)], resilient_parsing=True)


def needed(command):
    return ["--environment", "test"] if any(option.name == "environment" for option in command.params) else []


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
        words = call["arguments"]
        if "worker" in words:  # Asked with a worker's credentials.
            continue
        command = " ".join(words[: 2 if words[0] in ("dlq", "keys") else 1])
        action = f"{call['service']}:{ACTIONS.get(call['operation'], call['operation'])}"
        if action == "sts:GetCallerIdentity":
            continue
        used.setdefault(command, set()).add((call["where"], action))
        if action == "sqs:StartMessageMoveTask":
            used[command] |= IMPLIED
    table = OPERATIONS.partition("need to be allowed")[2]
    rows = re.findall(r"^\| ([a-z ]+) \|(.*?)\|(.*?)\|(.*?)\|$", table, re.MULTILINE)
    documented = {
        command: {
            (where, action)
            for where, cell in zip(("queue", "dead", "elsewhere"), cells, strict=True)
            for action in re.findall(r"`([^`]+)`", cell)
        }
        for command, *cells in rows
        if command != "command"
    }
    assert documented.pop("cost") == set()
    for command, rights in RARE.items():
        if command in used:
            used[command] |= rights
    assert documented.keys() == used.keys()
    assert {command: rights ^ used[command] for command, rights in documented.items() if rights != used[command]} == {}


def test_table_of_checks_is_that_of_the_doctor():
    rows = dict(re.findall(r"^\| (D[0-9]+) \| (.*) \|$", OPERATIONS, re.MULTILINE))
    assert rows == dict(module("ops.doctor").CHECKS)
