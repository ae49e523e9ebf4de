"""Celery's commands that revoke tasks, without requests to the result backend.

Celery 5.7 asks the result backend for the state of each revoked task, in the main process: while the
backend does not respond, the worker does nothing else. Here a task is only noted. A worker that
receives its message stores REVOKED in a task process, and so it does if it terminates the task.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from celery.platforms import signals
from celery.worker import state as worker
from celery.worker.control import Panel
from kombu.utils.functional import maybe_list

logger = logging.getLogger(__name__)


def revoke(
    state: Any, task_id: str | Iterable[str], terminate: bool = False, signal: str | None = None, **rest: Any
) -> dict[str, str]:
    """Revoke tasks, and terminate those that run here if asked to.

    Args:
        state: the worker's state: its application and consumer.
        task_id: an id, or several.
        terminate: whether to terminate a task that is running.
        signal: name of the signal that ends its process; SIGTERM by default.
        rest: what other versions of Celery send.
    """
    number = signals.signum(signal or "SIGTERM")  # An unknown name is refused before anything is noted.
    task_ids = set(maybe_list(task_id) or ())
    worker.revoked.update(task_ids)
    logger.info("tasks revoked: %s", ", ".join(sorted(task_ids)))
    if not terminate:
        return {"ok": f"tasks {', '.join(sorted(task_ids))} flagged as revoked"}
    running = [request for task_id in task_ids if (request := worker.requests.get(task_id))]
    for request in running:
        logger.info("terminating %s", request.id)
        request.terminate(state.consumer.pool, signal=number)
    return {"ok": f"terminate: {', '.join(request.id for request in running) or 'tasks unknown'}"}


def terminate(state: Any, signal: str, task_id: str | Iterable[str], **rest: Any) -> dict[str, str]:
    """Revoke tasks, and terminate those that run here."""
    return revoke(state, task_id, terminate=True, signal=signal)


Panel.data.update(revoke=revoke, terminate=terminate)
