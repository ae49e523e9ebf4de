"""Tasks for the end-to-end tests, so that these outlive the examples the project began with.

Each run leaves a note: a file in `folder`, named by the time, that says in which message group it ran.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Task, current_task, shared_task
from celery.exceptions import SoftTimeLimitExceeded

logger = logging.getLogger(__name__)


class HopelessError(Exception):
    """Another try is useless. Its arguments are not those of its base, so it survives no pickling."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}, because {why}")


def note(folder: str, suffix: str = "") -> None:
    """Leave a note of this run."""
    group = current_task.request.properties.get("MessageGroupId")
    (Path(folder) / f"{time.monotonic_ns()}{suffix}").write_text(str(group), encoding="utf-8")


@shared_task
def leave_trace(folder: str, fail_while: str | None = None) -> str:
    """Raise as long as the file `fail_while` is there."""
    note(folder)
    if fail_while and Path(fail_while).exists():
        raise RuntimeError(f"{fail_while} is still there")
    return "done"


@shared_task
def follow(before: Any, folder: str) -> str:
    """Do something after another task."""
    note(folder)
    return "done"


@shared_task
def send_on(folder: str) -> str:
    """Send another task."""
    note(folder)
    logger.info("sending on")
    leave_trace.apply_async((folder,), queue=current_task.request.delivery_info["routing_key"])
    return "done"


@shared_task(permanent_errors=(HopelessError,))
def despair(folder: str) -> None:
    """Raise what the task declares to be permanent."""
    note(folder)
    raise HopelessError("nothing", "of nothing")


@shared_task(retry_backoff_seconds=6)
def fail_patiently(folder: str) -> None:
    """Raise, with a pause of the task's own."""
    note(folder)
    raise RuntimeError("not now")


@shared_task(autoretry_for=(OSError,), retry_kwargs={"max_retries": 5, "countdown": 1})
def retry_until(folder: str, times: int) -> str:
    """Raise until it has run so many times, and have Celery send it anew."""
    note(folder)
    if len(list(Path(folder).iterdir())) < times:
        raise OSError("once more")
    return "done"


@shared_task
def overrun(folder: str, seconds: float, stubborn: bool = False) -> str:
    """Work for some time, and if stubborn, over the soft limit."""
    note(folder, ".began")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except SoftTimeLimitExceeded:
            note(folder, ".told")
            if not stubborn:
                raise
    note(folder, ".ended")
    return "done"


@shared_task
def die_while(folder: str, obstacle: str) -> str:
    """Kill the process that runs it as long as the file `obstacle` is there."""
    note(folder)
    if Path(obstacle).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@shared_task(bind=True)
def note_times(self: Task[Any, Any], folder: str, number: int, seconds: float, failures: int = 0) -> None:
    """Note when the task of that number began and ended, by message group; fail the first deliveries."""
    began = time.monotonic()
    time.sleep(seconds)
    delivery: Any = self.request.delivery_info
    group = self.request.properties["MessageGroupId"]
    name = f"{group}.{number}.{time.monotonic_ns()}"
    (Path(folder) / name).write_text(f"{began} {time.monotonic()}", encoding="utf-8")
    if delivery["receive_count"] <= failures:
        raise RuntimeError("not yet")


@shared_task(bind=True)
def stay_or_fail(self: Task[Any, Any], folder: str, obstacle: str) -> None:
    """Raise, but stay for long on the second delivery."""
    note(folder)
    delivery: Any = self.request.delivery_info
    if delivery["receive_count"] == 2:
        time.sleep(60)
    if Path(obstacle).exists():
        raise RuntimeError("not yet")
