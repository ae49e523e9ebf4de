"""Servers that run beside the emulator, such as RabbitMQ: it ends when one of them does, because its state is lost."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from typing import Any

POLL_SECONDS = 0.5

_processes: dict[str, subprocess.Popen[Any]] = {}


def watch(name: str, process: subprocess.Popen[Any]) -> None:
    """Have `wait` end when a server does.

    Args:
        name: its name in the output.
        process: its process.
    """
    _processes[name] = process


def wait() -> str:
    """Wait until standard input or a server ends; return which server, empty if there is none."""
    while True:
        for name, process in _processes.items():
            if (status := process.poll()) is not None:
                return f"{name} ended with status {status}"
        if select.select([sys.stdin], [], [], POLL_SECONDS)[0] and not os.read(sys.stdin.fileno(), 1024):
            return ""
