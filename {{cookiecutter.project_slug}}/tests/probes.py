"""Tasks for the end-to-end tests, so that these outlive the examples the project began with."""

from __future__ import annotations

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
