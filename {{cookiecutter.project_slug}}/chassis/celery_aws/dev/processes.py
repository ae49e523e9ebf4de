"""Runs the processes of `make dev`: starts and stops them, and hands on what they print."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

STOP_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL)
"""Each is sent if the one before was not enough. On SIGQUIT, a worker releases the tasks that it still runs."""
GRACE_SECONDS = 5


@dataclass
class Processes:
    """Processes by name, and one stream of the lines that they print."""

    commands: Mapping[str, str]
    """Shell commands by name."""
    groups: Collection[str]
    """Names of those whose whole process group is signalled: a shell does not hand a signal on. A worker is signalled
    alone, because it waits for the tasks of its own processes."""
    environment: Mapping[str, str]
    folder: Path
    show: Callable[[str, str], None]
    """Is called with the name of a process and a line, by the thread that calls the methods below."""
    _running: dict[str, subprocess.Popen[str]] = field(default_factory=dict, init=False)
    _lines: queue.SimpleQueue[tuple[str, str]] = field(default_factory=queue.SimpleQueue, init=False)

    def start(self) -> None:
        """Start those that are not running."""
        for name, command in self.commands.items():
            if name not in self._running:
                process = subprocess.Popen(  # noqa: S602 - the owner's own commands
                    command,
                    shell=True,
                    cwd=self.folder,
                    env=self.environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    # Ctrl-C in a terminal signals a whole process group; `stop` is to be the one that signals.
                    start_new_session=True,
                )
                self._running[name] = process
                threading.Thread(target=self._read, args=(name, process), daemon=True).start()

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._lines.put((name, line.rstrip("\n")))

    def pump(self, seconds: float) -> None:
        """Show what they print for some seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self.show(*self._lines.get(timeout=left))

    def ended(self) -> dict[str, int]:
        """Return the exit statuses of processes that have ended since the last call, by name."""
        statuses = {name: process.poll() for name, process in self._running.items()}
        ended = {name: status for name, status in statuses.items() if status is not None}
        for name in ended:
            del self._running[name]
        return ended

    def stop(self, names: Collection[str] | None = None) -> None:
        """Stop those of some names, by default all, and show what they print meanwhile."""
        stopped = [name for name in self._running if names is None or name in names]
        for number in STOP_SIGNALS:
            end = time.monotonic() + GRACE_SECONDS
            for name in stopped:
                self._signal(name, number)
            while (left := end - time.monotonic()) > 0 and self._any_runs(stopped):
                self.pump(min(left, 0.1))
        for name in stopped:
            del self._running[name]
        self.pump(0.1)

    def _signal(self, name: str, number: signal.Signals) -> None:
        process = self._running[name]
        if process.poll() is None:
            kill = os.killpg if name in self.groups or number == signal.SIGKILL else os.kill
            with contextlib.suppress(ProcessLookupError):
                kill(process.pid, number)

    def _any_runs(self, names: Collection[str]) -> bool:
        return any(self._running[name].poll() is None for name in names)
