"""The default base of tasks: what `@app.task(...)` understands beside Celery's own options."""

from __future__ import annotations

from typing import Any

import celery


class Task(celery.Task[Any, Any]):
    """A Celery task; any other base is treated alike, and may set the same attributes."""

    permanent_errors: tuple[type[Exception], ...] = ()
    """Errors after which another attempt is useless: the message goes to the dead-letter queue at once."""

    retry_backoff_seconds: float | None = None
    """Backoff after the first attempt, where the queue's does not fit: 0 to 43,200; doubled with each attempt."""

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Refuse options that cannot be honoured, when the task is registered.

        Raises:
            UnsupportedError: what cannot be honoured, and why.
        """
        from .checks import check_tasks  # Only now: the application's module is being imported.

        super().on_bound(app)
        check_tasks([cls])
