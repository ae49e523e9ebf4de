"""Running the service's command as its users do: alone, in a terminal, as the docs have it, or killed in the middle."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect

from celery_aws import cli
from library import prepared
from library.support import CONTRACT, PROJECT, RunningService

COMMAND = (sys.executable, "-m", CONTRACT["package"])
OPERATIONS = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
GROUPS = ("delayed", "dlq", "keys", "queues", "schedules")
"""Commands that have commands of their own."""
PEAK_MEBIBYTES = """
import resource, sys
if sys.platform == "linux":  # There, getrusage also counts what the parent had when it started this process.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    peak_mebibytes = int(status["VmHWM"].split()[0]) / 1024
else:
    peak_mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
"""
"""Python code that measures the most memory that its process has had so far."""
OTHERS = ("worker", "beat", "send", "health")
"""Commands that are no on-call commands."""


def documented() -> list[str]:
    """Return the on-call command lines of the docs."""
    found = []
    for page in ("docs/operations.md", "docs/runbook.md", "README.md"):
        text = (PROJECT / page).read_text(encoding="utf-8")
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
            lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
            found += [line for line in lines if line.startswith(f"{CONTRACT['service']} ")]
    return [line for line in found if line.split()[1] not in OTHERS]


def working_folder(folder: Path) -> Path:
    """Put into a folder what commands read from the one they are run in, and return it."""
    shutil.copytree(PROJECT / "terraform" / "environments", folder / "terraform" / "environments")
    return folder


def command_of(arguments: list[str]) -> str:
    """Return which command arguments begin with, such as `dlq list`."""
    if arguments[0] == "queues" and (len(arguments) == 1 or arguments[1].startswith("-")):
        return "queues list"
    return " ".join(arguments[: 2 if arguments[0] in GROUPS else 1])


class Commands:
    """Runs commands in the environment of a running service."""

    def __init__(self, service: RunningService) -> None:
        self.service = service
        self.environment = service.client_environment()
        for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
            self.environment.pop(name, None)
        modules = [module for name in cli.OPERATIONS if (module := cli.module_of(name))]
        prepared.prepare(["celery_aws.app", *modules], self.environment["PYTHONPATH"])

    def run(self, *arguments: object, status: int = 0, **variables: str) -> str:
        """Run a command to its end and return what it prints; its exit code must be `status`."""
        environment = {**self.environment, **variables}
        if any(name.startswith("PYTHON") for name in variables):  # What Python reads when it starts.
            command = [*COMMAND, *map(str, arguments)]
            run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        else:
            run = prepared.run(CONTRACT["package"], [*map(str, arguments)], environment, 300)
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
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def seconds_to_look(self, queue: str, status: int = 0) -> float:
        """Return how long a command takes that peeks at one dead-letter message; mostly its start-up."""
        began = time.monotonic()
        looking = self.start("dlq", "list", queue, "--limit", "1")
        _, errors = looking.communicate()
        assert looking.returncode == status, errors
        return time.monotonic() - began

    def killed(
        self,
        *arguments: object,
        after_seconds: float,
        how: signal.Signals = signal.SIGKILL,
        answers: str = "",
        written: Path | None = None,
    ) -> int:
        """Start a command, answer what it may ask, and kill it; return how it ended.

        It is killed that long after its start, or after it has written to a file.
        """
        running = self.start(*arguments)
        assert running.stdin
        running.stdin.write(answers)
        running.stdin.flush()
        while written and running.poll() is None and not (written.exists() and written.stat().st_size):
            time.sleep(0.01)
        time.sleep(after_seconds)
        running.send_signal(how)
        running.communicate()
        return running.returncode

    def typed(self, line: str, folder: Path, answers: str, **variables: str) -> tuple[int, str]:
        """Run a line of the docs as it stands, in a folder; return its exit code and all it says.

        What watches gets Ctrl-C soon after its first line, and what asks gets the answers.
        """
        command = folder / "bin" / CONTRACT["service"]
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n', encoding="utf-8")
        command.chmod(0o755)
        path = f"{command.parent}{os.pathsep}{self.environment['PATH']}"
        running = subprocess.Popen(
            f"exec {line}",
            shell=True,
            cwd=folder,
            env={**self.environment, "PATH": path, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        first = ""
        if "--watch" in line or line.split()[1] == "console":
            assert running.stdout
            first = running.stdout.readline()  # A busy machine needs many seconds to start it.
            time.sleep(2)
            running.send_signal(signal.SIGINT)
        said, _ = running.communicate(answers, timeout=90)
        return running.returncode, first + said

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


def exported_bodies(file: Path) -> list[str]:
    """Return the bodies in an exported file; a line that was cut off by a kill does not count."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    return [json.loads(line)["body"] for line in text.splitlines(keepends=True) if line.endswith("\n")]


def interrupt(terminal: pexpect.spawn, answer: str) -> None:
    """Press Ctrl-C at a prompt until it is answered: what comes just before a prompt waits, readline does not hear."""
    for _ in range(12):
        terminal.sendintr()
        if terminal.expect([answer, pexpect.TIMEOUT], timeout=5) == 0:
            return
    raise AssertionError(f"Ctrl-C was not answered by {answer!r}, but: {terminal.before}")


def make_user(service: RunningService) -> None:
    """Make what the commands for access keys look at, where there are such."""
    if CONTRACT["credentials"] == "keys":
        user = f"{CONTRACT['service']}-development-{CONTRACT['region']}-worker"
        service.client("iam").create_user(UserName=user)
        service.client("iam").create_access_key(UserName=user)
        service.client("secretsmanager").create_secret(Name=f"{CONTRACT['service']}-development-worker")
