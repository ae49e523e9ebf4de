"""Runs the service's command in processes that have imported before what it imports: that is most of its time.

Each is forked from one that has done nothing but that, so it knows as little of tests and other commands as a new one.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

FORKED = multiprocessing.get_context("forkserver")


def prepare(modules: Sequence[str], import_path: str) -> None:
    """Start the process that others are forked from.

    Args:
        modules: names of what it imports.
        import_path: its PYTHONPATH.
    """
    forkserver.set_forkserver_preload([__name__, *modules])
    with mock.patch.dict(os.environ, {"PYTHONPATH": import_path}):
        forkserver.ensure_running()


def run(
    package: str, arguments: Sequence[str], environment: dict[str, str], timeout_seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m package` with arguments to its end, and return that.

    Raises:
        TimeoutError: it has not ended in time.
    """
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / stream for stream in ("stdout", "stderr")]
        process = FORKED.Process(target=_run, args=(package, arguments, environment, files))
        process.start()
        process.join(timeout_seconds)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{arguments} took more than {timeout_seconds} s")
        output, errors = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    return subprocess.CompletedProcess([package, *arguments], process.exitcode, output, errors)


def _run(package: str, arguments: Sequence[str], environment: dict[str, str], files: Sequence[Path]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    # As Python does when it starts.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = [package, *arguments]
    runpy.run_module(package, run_name="__main__", alter_sys=True)
