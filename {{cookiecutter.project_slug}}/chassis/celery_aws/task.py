"""The default base class of tasks, with the options that it adds to Celery's `@app.task(...)`."""

from __future__ import annotations

from typing import Any

import celery


class Task(celery.Task[Any, Any]):
    """A Celery task. Tasks with another base class may set the same attributes."""

    permanent_errors: tuple[type[Exception], ...] = ()
    """Exceptions that are not retried: the message is dead-lettered at once."""

    retry_backoff_seconds: float | None = None
    """Backoff after the first failed attempt, 0 to 43,200, instead of the queue's; doubles with each attempt."""

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Refuse unsupported options when the task is registered.

        Raises:
            UnsupportedError: lists the options, and why they are not supported.
        """
        from .checks import check_tasks  # Imported late: the application's module is being imported.

        super().on_bound(app)
        check_tasks([cls])
