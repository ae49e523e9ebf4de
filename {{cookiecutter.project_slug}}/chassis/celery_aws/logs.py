"""Logging: one JSON object per line, or plain lines on a terminal.

Every log line of a task has its name, id, queue, message group, attempt and request id, and its trace id if it has one.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery import current_task, signals
from pythonjsonlogger.json import JsonFormatter

from .failures import cut
from .log_fields import current_request_id, task_fields
from .tracing import current_ids

NOISY = {
    # Logs every message received, with the task's arguments.
    "celery.worker.strategy": logging.WARNING,
    # Logs where it found credentials, for each client and process.
    "botocore": logging.WARNING,
}


class TaskFields(logging.Filter):
    """Adds the fields of the current task to every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields, and the ids of the active span; return True."""
        task = current_task
        if task and task.request.id:
            record.__dict__.update({**task_fields(task.name, task.request), **_own(record)})
        record.__dict__.update(current_ids())
        if "request_id" not in record.__dict__ and (current := current_request_id()):
            record.__dict__["request_id"] = current
        return True


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
    # Configuring logging from a dictionary, as Django does, disables loggers that exist, unless it says otherwise.
    for name, logger in root.manager.loggerDict.items():
        if name.partition(".")[0] in ("celery", __package__) and isinstance(logger, logging.Logger):
            logger.disabled = False
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
