"""Other arguments for a dead-letter message, checked against the parameters of its task."""

from __future__ import annotations

from typing import Any

from .. import service
from ..signatures import misfit, signature_text
from .message import ArgumentsError, Message


def edited(message: Message, args: list[Any], kwargs: dict[str, Any]) -> Message:
    """Return a message with other arguments, to be resent.

    They are not checked if this process cannot import the application, which needs all of the service's
    environment variables, or if the application has no such task.

    Raises:
        ArgumentsError: it is not a Celery message, its arguments cannot be decoded, or its task does not accept the
            new ones.
    """
    made: Message = message.edited(args, kwargs)
    task = _task(message.task)
    # As Celery does when it sends a task; `typing` is false for tasks that accept whatever is sent.
    if task is not None and task.typing and (reason := misfit(task, args, kwargs)):
        raise ArgumentsError(f"the arguments do not fit {task.name}{signature_text(task)}: {reason}")
    return made


def _task(name: str) -> Any:
    """Return a task of the service; None if it is not known here."""
    try:
        return service.app().find(name)
    except Exception:  # noqa: BLE001 - whatever the service's modules raise when they are imported
        return None
