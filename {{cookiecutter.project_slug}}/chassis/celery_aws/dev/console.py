"""The console in `make dev`, and the log of the workers that it shows."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path

from ..attempts import LOG_FILE
from . import emulator

__all__ = ["LOG_FILE", "log_file", "running"]

MOST_LOG_BYTES = 4 * 1_048_576
"""Size of a file of workers' output; the last two are kept."""


@contextlib.contextmanager
def running(package: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Run the console of a service, and yield its address; empty if it did not start.

    Args:
        package: the service's package.
        environment: all environment variables.
    """
    with subprocess.Popen(
        [sys.executable, "-m", package, "console", "--no-open"],
        cwd=emulator.PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # Not stopped by Ctrl-C in the terminal, but in the end.
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().rpartition(" ")[2].strip()
        finally:
            process.terminate()


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes a line to a file if it is JSON, as workers log."""
    file = RotatingFileHandler(path, maxBytes=MOST_LOG_BYTES, backupCount=1, encoding="utf-8")

    def write(line: str) -> None:
        if line.startswith("{"):
            file.emit(logging.makeLogRecord({"msg": line}))

    try:
        yield write
    finally:
        file.close()
