"""Sending tasks."""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.result import AsyncResult

from .app import app, contract


class UnknownTaskError(LookupError):
    """No task of the service has that name."""


def find(name: str) -> Task[Any, Any]:
    """Return the task called `<queue>.<function>`, or by its full name.

    Raises:
        UnknownTaskError: there is none; the message lists those there are.
    """
    app.loader.import_default_modules()
    prefix = f"{contract.package}.tasks."
    queue, dot, function = name.partition(".")
    for candidate in (name, prefix + queue.replace("-", "_") + dot + function):
        if candidate in app.tasks:
            return app.tasks[candidate]
    known = sorted(task.removeprefix(prefix) for task in app.tasks if task.startswith(prefix))
    raise UnknownTaskError(f"no task {name!r}; there are: {', '.join(known) or 'none'}")


def send(
    task: Task[Any, Any] | str,
    *args: Any,
    group: str | None = None,
    countdown: float | None = None,
    **kwargs: Any,
) -> AsyncResult[Any]:
    """Send one task to its queue.

    Args:
        task: the task, or its name as in `find`.
        args: its positional arguments.
        group: its message group. On FIFO queues, what it must stay in order with; on standard
            queues, whom it is for, so that no one's flood of tasks holds up the others.
        countdown: seconds before it may start; the contract's `max_countdown_seconds` at the most.
        kwargs: its keyword arguments.

    Returns:
        A handle with the task's id, and its result where the service keeps results.

    Raises:
        UnknownTaskError: no task has that name.
        ValueError: the group does not fit.
    """
    signature = (find(task) if isinstance(task, str) else task).signature(args, kwargs)
    options: dict[str, Any] = {"MessageGroupId": group, "countdown": countdown}
    return signature.apply_async(**{name: value for name, value in options.items() if value is not None})
