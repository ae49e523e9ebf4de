"""The console in `make dev`, and the output of the workers that it shows."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from honcho.printer import Printer

from ..attempts import LOG_FILE
from . import emulator

__all__ = ["LOG_FILE", "printer", "running"]

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
def printer(path: Path) -> Iterator[Any]:
    """Yield a printer for honcho that also writes the lines of JSON, which workers log, to a file."""
    file = RotatingFileHandler(path, maxBytes=MOST_LOG_BYTES, backupCount=1, encoding="utf-8")

    class Copying(Printer):  # type: ignore[misc]
        def write(self, message: Any) -> None:
            super().write(message)
            data = message.data
            text = data.decode(errors="replace") if isinstance(data, bytes) else data
            for line in text.splitlines():
                if line.startswith("{"):
                    file.emit(logging.makeLogRecord({"msg": line}))

    try:
        yield Copying(sys.stdout)
    finally:
        file.close()
