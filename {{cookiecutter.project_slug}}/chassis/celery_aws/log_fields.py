"""What a log line of a task has: name, id, queue, message group, attempt, request id and trace id.

Clients of a service use this module, and leave it to their application how it logs; see logs.py for workers.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

from celery import current_task

from .tracing import trace_id_of

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that this code serves.

Set it when a request arrives: `request_id.set("…")`. The tasks that the request causes inherit it.
"""


def current_request_id() -> str | None:
    """Return the id of the request that this code serves, in a task or elsewhere."""
    if chosen := request_id.get():
        return chosen
    request = current_task.request if current_task else None
    if request is None or not request.id:
        return None
    return str(getattr(request, "request_id", None) or request.root_id or request.id)


def task_fields(name: str | None, request: Any) -> dict[str, Any]:
    """Return the log fields of a task: name, id, queue, message group, attempt, request id and trace id."""
    delivery = request.delivery_info or {}
    properties = request.properties or {}
    fields = {
        "task": name,
        "task_id": request.id,
        "queue": delivery.get("routing_key"),
        "group": properties.get("MessageGroupId"),
        "attempt": delivery.get("receive_count"),
        "request_id": getattr(request, "request_id", None) or request.root_id,
        "trace_id": trace_id_of(request),
    }
    return {field: value for field, value in fields.items() if value is not None}


_MESSAGES = {
    "succeeded": "succeeded in {seconds:.3f} s",
    "retrying": "failed after {seconds:.3f} s; redelivery in about {redelivery:g} s",
    "dead_lettered": "failed after {seconds:.3f} s; dead-lettered",
    "rejected": "rejected after {seconds:.3f} s; dead-lettered",
    "retry_requested": "retry requested after {seconds:.3f} s",
    "ignored": "ignored after {seconds:.3f} s",
    "revoked": "revoked",
    "interrupted": "interrupted after {seconds:.3f} s; redelivery at once",
}


def log_outcome(
    logger: logging.Logger,
    level: int,
    fields: dict[str, Any],
    verdict: Any,
    suffix: str = "",
    error: BaseException | None = None,
) -> None:
    """Log the outcome of an attempt. The values of `outcome` are an interface; see docs/outcomes.md.

    Args:
        logger: logger of the calling module.
        level: severity.
        fields: fields of the task, from `task_fields`.
        verdict: the verdict on the attempt.
        suffix: appended to the message.
        error: error to log with its traceback.
    """
    seconds, redelivery = verdict.runtime_seconds, verdict.redelivery_in_seconds
    extra = {**fields, "outcome": verdict.outcome, "duration_seconds": round(seconds, 3)}
    if verdict.age_seconds is not None:
        extra["age_seconds"] = round(verdict.age_seconds, 3)
    if verdict.outcome == "retrying":
        extra["redelivery_in_seconds"] = redelivery
    text = _MESSAGES[verdict.outcome].format(seconds=seconds, redelivery=redelivery)
    logger.log(level, "%s%s", text, suffix, exc_info=error, extra=extra)
