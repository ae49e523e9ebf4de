"""Tasks for tests. The workers of tests know them; they can be sent to any queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery import shared_task

from ..task import Task


@shared_task
def echo(value: Any) -> Any:
    """Return the argument."""
    return value


@shared_task(base=Task, permanent_errors=(FileNotFoundError,))
def read(path: str) -> str:
    """Return the content of a file; without the file, the task is dead-lettered at once."""
    return Path(path).read_text(encoding="utf-8")
