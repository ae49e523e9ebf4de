"""Tasks for tests, which workers under test know beside those of the service; they go to any queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery import shared_task

from ..task import Task


@shared_task
def echo(value: Any) -> Any:
    """Return what it was given."""
    return value


@shared_task(base=Task, permanent_errors=(FileNotFoundError,))
def read(path: str) -> str:
    """Return what a file holds; while there is none, the task is dead-lettered at once."""
    return Path(path).read_text(encoding="utf-8")
