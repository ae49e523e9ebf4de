"""The commands in the docs, run as they stand, each by a user who may do what docs/operations.md says and no more."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

import boto3
import pytest

from dev import broker
from tests.commands import Commands
from tests.letters import celery_body, channel, name, put
from tests.support import CONTRACT, PROJECT, module, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

OPERATIONS = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
RUNBOOK = (PROJECT / "docs" / "runbook.md").read_text(encoding="utf-8")
README = (PROJECT / "README.md").read_text(encoding="utf-8")
OTHERS = ("worker", "send", "health", "contract")
"""Commands that are no on-call commands."""

USER = "on-call"


def examples():
    """Return the on-call command lines of the docs."""
    found = []
    for text in (OPERATIONS, RUNBOOK, README):
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
            lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
            found += [line for line in lines if line.startswith(f"{CONTRACT['service']} ")]
    return [line for line in found if line.split()[1] not in OTHERS]


def command_of(line):
    """Return the command of a command line."""
    words = line.split()
    return " ".join(words[1 : 3 if words[1] in ("dlq", "keys") else 2])


def rights():
    """Return what docs/operations.md says that each command needs: a set for each column."""
    table = OPERATIONS.partition("need to be allowed")[2]
    rows = re.findall(r"^\| ([a-z ]+) \|(.*)\|$", table, re.MULTILINE)
    columns = ("configure", "write", "read", "tag", "aws")
    return {
        command: {
            column: re.findall(r"`([^`]+)`", cell) for column, cell in zip(columns, cells.split("|"), strict=True)
        }
        for command, cells in rows
        if command != "command"
    }


def pattern(names):
    """Return the pattern of a permission for those names, or ends of names."""
    return "|".join(f"{each}$" if each.startswith("-") else f"^{each}$" for each in names) or "^$"


def grant(service, command):
    """Give the user what a command needs, and nothing else."""
    needed = rights()[command]
    management = service.environment["BROKER_MANAGEMENT_URL"]
    virtual_host = urlsplit(service.environment["BROKER_URL"]).path[1:]
    user = f"{USER}-{virtual_host}"
    broker.ask(management, "PUT", f"users/{user}", {"password": "word", "tags": ",".join(needed["tag"])})
    permissions = {kind: pattern(needed[kind]) for kind in ("configure", "write", "read")}
    broker.ask(management, "PUT", f"permissions/{virtual_host}/{user}", permissions)
    return {"BROKER_USERNAME": user, "BROKER_PASSWORD": "word"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Run every command line of the docs; return how each ended."""
    folder = tmp_path_factory.mktemp("here")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    command = bin_folder / CONTRACT["service"]
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {CONTRACT["package"]} "$@"\n')
    command.chmod(0o755)
    found = []
    with running_service(tmp_path_factory.mktemp("logs")) as service:
        make_user(service)
        environment = dict(Commands(service).environment)
        environment["PATH"] = f"{bin_folder}{os.pathsep}{environment['PATH']}"
        letters = [celery_body(n) for n in range(4)]
        for line in examples():
            headers = {"task": f"x.tasks.{service.queue.name}.count_words"}
            with channel(service) as opened:
                opened.queue_purge(name(service))
            put(service, letters[:3], headers=headers)
            put(service, letters[3:], headers={**headers, "id": "2f1c9a44-bbbb"})
            running = subprocess.Popen(
                f"exec {line}",
                shell=True,
                cwd=folder,
                env={**environment, **grant(service, command_of(line))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if "--watch" in line:
                time.sleep(6)
                running.send_signal(signal.SIGINT)
            said, _ = running.communicate(f"n\n{name(service)}\n", timeout=90)
            found.append((line, running.returncode, said))
        virtual_host = urlsplit(service.environment["BROKER_URL"]).path[1:]
        broker.ask(service.environment["BROKER_MANAGEMENT_URL"], "DELETE", f"users/{USER}-{virtual_host}")
    return found


def make_user(service):
    """Make what the commands for access keys look at."""
    if CONTRACT["credentials"] != "keys":
        return
    user = f"{CONTRACT['service']}-development-worker"
    for kind in ("iam", "secretsmanager"):
        client = boto3.client(
            kind,
            endpoint_url=service.environment["AWS_ENDPOINT_URL"],
            region_name=service.contract.region,
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        if kind == "iam":
            client.create_user(UserName=user)
            client.create_access_key(UserName=user)
        else:
            client.create_secret(Name=user)


def test_every_command_has_an_example_and_its_rights():
    ops = module("ops")
    commands = {
        f"{each} {sub}" if sub else each for each in ops.names() for sub in getattr(ops.load(each), "commands", [""])
    }
    assert {command_of(line) for line in examples()} == commands
    assert all(f"{CONTRACT['service']} {each}" in OPERATIONS for each in commands)
    assert rights().keys() == commands


def test_help_of_every_command_has_an_example_that_parses():
    ops = module("ops")
    for each in ops.names():
        command = ops.load(each)
        for sub in getattr(command, "commands", {"": command}).values():
            assert sub.examples, each
            for example in sub.examples:
                words = shlex.split(example)
                assert words[0] == each
                sub.make_context(each, [*words[1 if sub is command else 2 :], *needed(sub)], resilient_parsing=True)


def needed(command):
    return ["--environment", "test"] if any(option.name == "environment" for option in command.params) else []


@pytest.mark.timeout(400)
def test_every_command_of_the_docs_runs_as_it_stands_with_its_rights_and_no_others(outcomes):
    assert len(outcomes) >= 20
    wrong = [
        (line, status, said)
        for line, status, said in outcomes
        # The doctor finds no worker here, and what only other roles may do; lists and queues find what was put there.
        if "Traceback" in said or status not in ((0, 1) if re.search(r" (list|doctor|queues|keys)\b", line) else (0,))
    ]
    assert not wrong
    for line, _, said in outcomes:
        if line.endswith(" doctor"):
            assert "D301" not in said


def test_table_of_checks_is_that_of_the_doctor():
    rows = dict(re.findall(r"^\| (D[0-9]+) \| (.*) \|$", OPERATIONS, re.MULTILINE))
    assert rows == dict(module("ops.doctor").CHECKS)
