"""The default base class of tasks, with the options that it adds to Celery's `@app.task(...)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import celery

from . import errors
from .coroutines import drive, is_coroutine_function, is_in_event_loop


class Task(celery.Task[Any, Any]):
    """A Celery task. Tasks with another base class may set the same attributes."""

    permanent_errors: tuple[type[Exception], ...] = ()
    """Exceptions that are not retried: the message is dead-lettered at once."""

    retry_backoff_seconds: float | None = None
    """Backoff after the first failed attempt, 0 to 43,200, instead of the queue's; doubles with each attempt."""

    message_group: str | Callable[..., object] | None = None
    """Message group of its messages unless the producer names one: a text, or a function of its arguments."""

    deduplication_key: str | Callable[..., object] | None = None
    """For FIFO queues: of this task's messages with the same key within five minutes, SQS delivers the first only.

    A text, or a function of its arguments; by default each message has a key of its own.
    """

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Refuse unsupported options when the task is registered; run a coroutine function on an event loop.

        Raises:
            UnsupportedError: lists the options, and why they are not supported.
        """
        from .checks import check_tasks  # Imported late: the application's module is being imported.

        super().on_bound(app)
        drive(cls)
        check_tasks([cls])

    def apply(self, *args: Any, **options: Any) -> Any:
        """Run the task in this process; see `celery.Task.apply`.

        Raises:
            EventLoopRunningError: the task is a coroutine function, and an event loop is running in this thread.
        """
        if is_in_event_loop() and is_coroutine_function(self.run):
            raise errors.EventLoopRunningError(
                f"{self.name} cannot run here, because an event loop is running in this thread. Await it instead: "
                f"await {self.name.rpartition('.')[2]}(...)"
            )
        return super().apply(*args, **options)
