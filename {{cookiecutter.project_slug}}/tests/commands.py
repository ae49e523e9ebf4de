"""Running the service's command as its users do: in a process of its own, in a terminal, or killed in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pexpect

from tests.support import CONTRACT, RunningService

COMMAND = (sys.executable, "-m", CONTRACT["package"])


class Commands:
    """Runs commands in the environment of a running service."""

    def __init__(self, service: RunningService) -> None:
        self.service = service
        self.environment = service.client_environment()
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
