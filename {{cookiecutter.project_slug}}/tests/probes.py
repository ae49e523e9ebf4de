"""Tasks for the end-to-end tests, so that these outlive the examples the project began with."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Task, shared_task


@shared_task(bind=True)
def leave_trace(self: Task[Any, Any], folder: str, fail_while: str | None = None) -> str:
    """Note each run in a file of its own; raise as long as the file `fail_while` is there."""
    trace = Path(folder) / f"{time.monotonic_ns()}"
    trace.write_text(str(self.request.properties.get("MessageGroupId")), encoding="utf-8")
    if fail_while and Path(fail_while).exists():
        raise RuntimeError(f"{fail_while} is still there")
    return "done"


@shared_task
def die_while(folder: str, obstacle: str) -> str:
    """Note each run; kill the process that runs it as long as the file `obstacle` is there."""
    (Path(folder) / f"{time.monotonic_ns()}").touch()
    if Path(obstacle).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@shared_task(bind=True)
def note_times(self: Task[Any, Any], folder: str, number: int, seconds: float) -> None:
    """Note when the task of that number began and ended, by message group."""
    began = time.monotonic()
    time.sleep(seconds)
    note = Path(folder) / f"{self.request.properties['MessageGroupId']}.{number}"
    note.write_text(f"{began} {time.monotonic()}", encoding="utf-8")
