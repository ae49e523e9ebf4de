"""The commands in the docs, run as they stand, each by a user who may do what docs/operations.md says and no more."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from celery_aws.dev.brokers import rabbitmq as broker
from library.commands import OPERATIONS, Commands, command_of, documented, make_user, working_folder
from library.rabbitmq.messages import celery_body, channel, name, put
from library.support import CONTRACT, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

USER = "on-call"


def documented_permissions():
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
    needed = documented_permissions()[command]
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
    folder = working_folder(tmp_path_factory.mktemp("here"))
    found = []
    schedule = {"name": "nightly", "task": "x.y", "queue": CONTRACT["queues"][0]["name"], "cron": "30 6 * * *"}
    with running_service(tmp_path_factory.mktemp("logs"), schedules=[schedule]) as service:
        make_user(service)
        commands = Commands(service)
        messages = [celery_body(n) for n in range(4)]
        headers = {"task": f"x.tasks.{service.queue.name}.send_invoice"}
        for line in documented():
            with channel(service) as opened:
                opened.purge(name(service))
            put(service, messages[:3], headers=headers)
            put(service, messages[3:], headers={**headers, "id": "2f1c9a44-bbbb"})
            user = grant(service, command_of(line.split()[1:]))
            found.append((line, *commands.typed(line, folder, f"n\n{name(service)}\n", **user)))
        virtual_host = urlsplit(service.environment["BROKER_URL"]).path[1:]
        broker.ask(service.environment["BROKER_MANAGEMENT_URL"], "DELETE", f"users/{USER}-{virtual_host}")
    return found


def test_every_command_has_its_rights():
    assert documented_permissions().keys() == {command_of(line.split()[1:]) for line in documented()}


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
