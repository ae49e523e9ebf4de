"""Running the service's command as its users do: in a process of its own, in a terminal, or killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path

import pexpect

from tests import broker
from tests.support import CONTRACT, PROJECT, RunningService

COMMAND = (sys.executable, "-m", CONTRACT["package"])


class Commands:
    """Runs commands in the environment of a running service."""

    def __init__(self, service: RunningService) -> None:
        self.service = service
        path = os.pathsep.join((str(PROJECT / "src"), str(PROJECT)))
        self.environment = {**service.environment, "PYTHONPATH": path}
        for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
            self.environment.pop(name, None)

    def run(self, *arguments: object, status: int = 0, **variables: str) -> str:
        """Run a command to its end and return what it prints; its exit code must be `status`."""
        run = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert run.returncode == status, f"{run.returncode}\n{run.stdout}\n{run.stderr}"
        assert "Traceback" not in run.stderr, run.stderr
        self.errors = run.stderr
        return run.stdout

    def lines(self, *arguments: object, status: int = 0) -> list[dict[str, object]]:
        """Run a command with `--json` and return its lines."""
        return [json.loads(line) for line in self.run(*arguments, "--json", status=status).splitlines()]

    def start(self, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def terminal(self, *arguments: object) -> pexpect.spawn:
        """Start a command in a terminal of 80 columns."""
        command, *first = COMMAND
        return pexpect.spawn(
            command,
            [*first, *map(str, arguments)],
            env={**self.environment, "TERM": "xterm-256color"},
            dimensions=(40, 80),
            encoding="utf-8",
            timeout=60,
            # Tests that run in the background have it ignored, and hand that down.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def put(
    service: RunningService, bodies: Iterable[str], *, dead: bool = True, groups: int = 100_000, **more: object
) -> None:
    """Put messages into the dead-letter queue of the first queue, or into the queue itself.

    Each is in a group of its own, unless there are to be fewer: of a FIFO queue, the emulator shows the first message
    of each group, and AWS the first ten.
    """
    sqs, url, fifo = broker.client(service), service.url(dead=dead), service.contract.suffix
    made = []
    for number, body in enumerate(bodies):
        made.append({"Id": str(number % 10), "MessageBody": body, "MessageGroupId": f"group-{number % groups}", **more})
        if fifo:
            made[-1]["MessageDeduplicationId"] = str(uuid.uuid4())
        if len(made) == 10:
            sqs.send_message_batch(QueueUrl=url, Entries=made)
            made = []
    if made:
        sqs.send_message_batch(QueueUrl=url, Entries=made)


def celery_body(number: int, task: str = "tests.probes.leave_trace") -> str:
    """Return the body of a message as the service sends it."""
    return json.dumps(
        {
            "body": json.dumps([[f"argument {number}"], {}, {}]),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": task, "id": f"{number:08d}-aaaa", "retries": 0},
            "properties": {"delivery_tag": "t", "delivery_mode": 2, "body_encoding": None},
        }
    )


def bodies(service: RunningService, *, dead: bool) -> list[str]:
    """Take all messages out of a queue, and return their bodies."""
    sqs, url, found = broker.client(service), service.url(dead=dead), []
    while page := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages"):
        for message in page:
            found.append(message["Body"])
        sqs.delete_message_batch(
            QueueUrl=url,
            Entries=[{"Id": str(i), "ReceiptHandle": message["ReceiptHandle"]} for i, message in enumerate(page)],
        )
    return found


def exported_bodies(file: Path) -> list[str]:
    """Return the bodies in an exported file; a line that was cut off by a kill does not count."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    return [json.loads(line)["body"] for line in text.splitlines(keepends=True) if line.endswith("\n")]
