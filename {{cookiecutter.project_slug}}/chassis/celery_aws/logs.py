"""Logs: one JSON object a line for machines, plain lines for people at a terminal.

Every line that a task causes names the task, its id, queue, message group, attempt and request.
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
"""The request on whose behalf this code runs.

Set it where a request comes in, `request_id.set("…")`, and every task it leads to is logged with it.
"""

NOISY = {
    # Says what it received, and its arguments with it.
    "celery.worker.strategy": logging.WARNING,
    # Where it found credentials and endpoint, once per client and process.
    "botocore": logging.WARNING,
}


def current_request_id() -> str | None:
    """Return the request on whose behalf this code runs, in a task or elsewhere."""
    if chosen := request_id.get():
        return chosen
    request = current_task.request if current_task else None
    if request is None or not request.id:
        return None
    return str(getattr(request, "request_id", None) or request.root_id or request.id)


class TaskFields(logging.Filter):
    """Adds to a record what is known of the task that runs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        task = current_task
        if task and task.request.id:
            record.__dict__.update({**task_fields(task.name, task.request), **_own(record)})
        if "request_id" not in record.__dict__ and (current := current_request_id()):
            record.__dict__["request_id"] = current
        return True


def task_fields(name: str | None, request: Any) -> dict[str, Any]:
    """Return the fields of a task's log lines."""
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
    """Write the line that says what an attempt ended with; people query its `outcome`.

    Args:
        logger: of the module that decided.
        level: severity.
        fields: of the task, by `task_fields`.
        verdict: what the attempt ended with.
        suffix: what else is to be said.
        error: to be logged with its traceback.
    """
    seconds, redelivery = verdict.runtime_seconds, verdict.redelivery_in_seconds
    extra = {**fields, "outcome": verdict.outcome, "duration_seconds": round(seconds, 3)}
    if verdict.outcome == "retrying":
        extra["redelivery_in_seconds"] = redelivery
    text = _MESSAGES[verdict.outcome].format(seconds=seconds, redelivery=redelivery)
    logger.log(level, "%s%s", text, suffix, exc_info=error, extra=extra)


def _own(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that a record was made with; they are not to be replaced."""
    return {field: record.__dict__[field] for field in ("task", "task_id") if field in record.__dict__}


class ShortTraceback(logging.Formatter):
    """Cuts tracebacks whose errors are megabytes long; where the error is stands at the end."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as logging calls it
        """Return a traceback as text."""
        return cut(super().formatException(ei), keep_end=True)


class PlainFormatter(ShortTraceback):
    """Lines for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(message)s%(about)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Name the task, if there is one, behind what is said."""
        task = record.__dict__.get("task")
        record.__dict__["about"] = f"  {task}[{record.__dict__.get('task_id')}]" if task else ""
        return super().format(record)


class MachineFormatter(ShortTraceback, JsonFormatter):
    """Lines for machines."""

    def __init__(self) -> None:
        super().__init__(
            "{levelname}{name}{message}",
            style="{",
            timestamp=True,
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            # Celery's own, with the arguments of the task.
            reserved_attrs=[*logging.LogRecord("", 0, "", 0, "", (), None).__dict__, "message", "data", "about"],
        )


def set_up(level: str | int, plain: bool | None = None) -> None:
    """Log to standard error from here on.

    Args:
        level: the least severity.
        plain: for people; by default if standard error is a terminal.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(TaskFields())
    for_people = sys.stderr.isatty() if plain is None else plain
    handler.setFormatter(PlainFormatter() if for_people else MachineFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name, least in NOISY.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(True)
    logging.getLogger("celery.app.trace").addFilter(_is_not_logged_by_delivery)


def _is_not_logged_by_delivery(record: logging.LogRecord) -> bool:
    """Drop what delivery.py logs itself, in fewer words and without arguments and return values."""
    return "data" not in record.__dict__


@signals.setup_logging.connect
def _on_setup_logging(loglevel: Any = None, **rest: Any) -> None:
    set_up(loglevel or logging.INFO)
