"""Sending tasks, one or many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from celery import Task
from celery.result import AsyncResult

from .app import app, contract
from .errors import UnknownTaskError

batching = app.batching
"""What is sent in `with batching():`, by whatever means, goes out in few requests when the block ends.

`delay`, `apply_async`, groups and chords, and `send`, all take part. If the block raises, nothing is sent. If the
broker does not take some messages, though that was tried repeatedly, the end of the block raises a `NotAllSentError`
that knows which; the others are sent. What waits is kept in memory: use one block for some thousand tasks, not for a
million.
"""


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
        ValueError: the group, the countdown or the size does not fit.
    """
    signature = (find(task) if isinstance(task, str) else task).signature(args, kwargs)
    options: dict[str, Any] = {"MessageGroupId": group, "countdown": countdown}
    return signature.apply_async(**{name: value for name, value in options.items() if value is not None})


def send_many(
    task: Task[Any, Any] | str, arguments: Iterable[Sequence[Any]], group: str | None = None
) -> list[AsyncResult[Any]]:
    """Send one task many times, in a tenth of the requests or less.

    Args:
        task: the task, or its name as in `find`.
        arguments: the positional arguments of each.
        group: the message group of all; see `send`.

    Returns:
        A handle for each.

    Raises:
        NotAllSentError: some could not be sent; it knows which.
        UnknownTaskError: no task has that name.
        ValueError: the group or the size of one does not fit; nothing was sent.
    """
    found = find(task) if isinstance(task, str) else task
    with batching():
        return [send(found, *each, group=group) for each in arguments]
