"""Logging: one JSON object per line, or plain lines on a terminal.

Every log line of a task has its name, id, queue, message group, attempt and request id.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Any

from celery import current_task, signals
from pythonjsonlogger.json import JsonFormatter

from .failures import cut

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that this code serves.

Set it when a request arrives: `request_id.set("…")`. The tasks that the request causes inherit it.
"""

NOISY = {
    # Logs every message received, with the task's arguments.
    "celery.worker.strategy": logging.WARNING,
    # Logs where it found credentials, for each client and process.
    "botocore": logging.WARNING,
}


def current_request_id() -> str | None:
    """Return the id of the request that this code serves, in a task or elsewhere."""
    if chosen := request_id.get():
        return chosen
    request = current_task.request if current_task else None
    if request is None or not request.id:
        return None
    return str(getattr(request, "request_id", None) or request.root_id or request.id)


class TaskFields(logging.Filter):
    """Adds the fields of the current task to every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; return True."""
        task = current_task
        if task and task.request.id:
            record.__dict__.update({**task_fields(task.name, task.request), **_own(record)})
        if "request_id" not in record.__dict__ and (current := current_request_id()):
            record.__dict__["request_id"] = current
        return True


def task_fields(name: str | None, request: Any) -> dict[str, Any]:
    """Return the log fields of a task: name, id, queue, message group, attempt and request id."""
    delivery = request.delivery_info or {}
    properties = request.properties or {}
    fields = {
        "task": name,
        "task_id": request.id,
        "queue": delivery.get("routing_key"),
        "group": properties.get("MessageGroupId"),
        "attempt": delivery.get("receive_count"),
        "request_id": getattr(request, "request_id", None) or request.root_id,
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
    if verdict.outcome == "retrying":
        extra["redelivery_in_seconds"] = redelivery
    text = _MESSAGES[verdict.outcome].format(seconds=seconds, redelivery=redelivery)
    logger.log(level, "%s%s", text, suffix, exc_info=error, extra=extra)


def _own(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that the record already has; they take precedence."""
    return {field: record.__dict__[field] for field in ("task", "task_id") if field in record.__dict__}


class ShortTraceback(logging.Formatter):
    """Cuts long tracebacks at their beginning; the error is at the end."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as logging calls it
        """Return a traceback as text."""
        return cut(super().formatException(ei), keep_end=True)


class PlainFormatter(ShortTraceback):
    """Formats lines for a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(message)s%(about)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Append the name and id of the task, if there is one."""
        task = record.__dict__.get("task")
        record.__dict__["about"] = f"  {task}[{record.__dict__.get('task_id')}]" if task else ""
        return super().format(record)


class MachineFormatter(ShortTraceback, JsonFormatter):
    """Formats lines as JSON."""

    def __init__(self) -> None:
        super().__init__(
            "{levelname}{name}{message}",
            style="{",
            timestamp=True,
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            # Celery's `data` has the arguments of the task; `about` is for the plain format.
            reserved_attrs=[*logging.LogRecord("", 0, "", 0, "", (), None).__dict__, "message", "data", "about"],
        )


def set_up(level: str | int, plain: bool | None = None) -> None:
    """Configure logging to standard error.

    Args:
        level: lowest severity.
        plain: plain lines instead of JSON; by default if standard error is a terminal.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(TaskFields())
    use_plain = sys.stderr.isatty() if plain is None else plain
    handler.setFormatter(PlainFormatter() if use_plain else MachineFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name, least in NOISY.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(True)
    logging.getLogger("celery.app.trace").addFilter(_is_not_logged_by_delivery)


def _is_not_logged_by_delivery(record: logging.LogRecord) -> bool:
    """Drop Celery's outcome lines; delivery.py logs outcomes without arguments and return values."""
    return "data" not in record.__dict__


@signals.setup_logging.connect
def _on_setup_logging(loglevel: Any = None, **rest: Any) -> None:
    set_up(loglevel or logging.INFO)
