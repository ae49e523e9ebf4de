"""Transactional sending: a message is written in a transaction of the caller's, and sent after it.

`sqlalchemy.py` and `django/` have the tables. A row is sent at least once, with the same task id each time. It is
claimed for some time before it is sent, so that several relays share the work and no transaction is open meanwhile.
See docs/outbox.md of the service.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from celery import current_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils import uuid
from kombu.exceptions import EncodeError
from kombu.utils.json import dumps, loads

from .. import errors, log_fields
from ..failures import describe

if TYPE_CHECKING:
    from ..sending import Service

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

TABLE_NAME = f"{__package__.partition('.')[0]}_outbox"
"""Default name of the table."""

BATCH = 100
"""How many rows are claimed and sent together."""

CLAIM_SECONDS = 60
"""How long a claim holds. If the process that claimed rows dies, another one sends them after this time.

Sending a batch takes less, also if the broker is slow. It is less than five minutes, so that SQS drops a duplicate of
a message to a FIFO queue.
"""

CONNECTION_WITHIN_SECONDS = 5
"""How long to wait for a connection of the pool. Threads that commit in a `batching` block may hold all of them."""

RETRY_AFTER_SECONDS = 5
"""Minimum delay before a row that could not be sent is tried again."""

INTERVAL_SECONDS = 1.0
"""Interval between polls of the table by a relay."""

MAX_INTERVAL_SECONDS = 30.0
"""Longest interval while the broker or the database is unavailable."""

REFUSED = (errors.RefusedError, errors.UnknownTaskError, EncodeError, TypeError)
"""Errors after which a message can never be sent as it was written; TypeError: the task has other parameters now."""


@dataclass(frozen=True)
class Row:
    """A row that this process has claimed."""

    id: int
    task_id: str
    task: str
    message: str
    """What is sent, as JSON."""


class Rows(Protocol):
    """The table. Each method is a transaction of its own.

    A claim may have ended meanwhile, and another relay may have claimed its rows. So a method changes only the rows
    that the claim still holds.
    """

    def claim(self, token: str, now: float, until: float, only: Collection[str] | None) -> list[Row]:
        """Claim up to `BATCH` rows, oldest first, and return them.

        A row with an ordering key can be claimed if there is no earlier one with this key that has not failed.

        Args:
            token: name of the claim.
            now: time in seconds since 1970; rows that are claimed or deferred until later are not claimed.
            until: when the claim ends.
            only: task ids of the rows to claim; by default all.
        """

    def delete(self, token: str, ids: Collection[int]) -> None:
        """Delete rows that were sent."""

    def defer(self, token: str, ids: Collection[int], until: float) -> None:
        """Release rows that could not be sent; they can be claimed again at that time."""

    def fail(self, token: str, id: int, reason: str) -> None:  # noqa: A002
        """Mark a row that can never be sent."""

    def reconnect(self) -> None:
        """Have the next transaction use a usable connection; called after an error."""

    def call_in_thread(self, function: Callable[[], Value]) -> Value:
        """Call a function in another thread, and return its result; see `in_thread`."""


@dataclass(frozen=True)
class Relayed:
    """What became of rows."""

    sent: int = 0
    refused: int = 0
    """How many can never be sent; they were marked as failed."""
    unsent: int = 0
    """How many could not be sent now, because the broker is unavailable, and wait."""

    def __add__(self, other: Relayed) -> Relayed:
        return Relayed(self.sent + other.sent, self.refused + other.refused, self.unsent + other.unsent)


def columns(
    app: Service[Any],
    task: Any,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    group: str | None,
    countdown: float | None,
) -> dict[str, Any]:
    """Check a message as `Service.send` does, and return the columns of its row.

    Raises:
        TypeError: the task has other parameters.
        UnknownTaskError: there is no such task.
        ValueError: the group, the countdown or the message size is invalid.
        kombu.exceptions.EncodeError: the arguments cannot be serialized.
    """
    prepared = app.prepare(task, *args, group=group, countdown=countdown, **kwargs)
    due = datetime.now(timezone.utc) + timedelta(seconds=countdown) if countdown else None
    running = current_task.request if current_task and current_task.request.id else None
    held = {
        "args": prepared.args,
        "kwargs": prepared.kwargs,
        "group": prepared.group,
        "due": due,
        "request_id": log_fields.current_request_id() or prepared.task_id,
        "root_id": (running.root_id or running.id) if running else None,
        "parent_id": running.id if running else None,
        "trace": app.tracing.headers(),
    }
    return {
        "task_id": prepared.task_id,
        "task": prepared.task,
        "ordering_key": prepared.ordering_key,
        "message": dumps(held),
    }


def relay(app: Service[Any], rows: Rows, only: Collection[str] | None = None) -> Relayed:
    """Send the rows that can be claimed, batch after batch.

    Args:
        app: the application.
        rows: the table.
        only: task ids of the rows to send; by default all.

    Returns:
        What became of them.
    """
    total = Relayed()
    while True:
        token, now = uuid(), time.time()
        claimed = rows.claim(token, now, now + CLAIM_SECONDS, only)
        if not claimed:
            return total
        batch = _settle(rows, token, claimed, rows.call_in_thread(lambda: _send(app, claimed)))  # noqa: B023
        total += batch
        settled = total.sent + total.refused
        if not (batch.sent or batch.refused) or (only is not None and settled >= len(only)):
            return total


def relay_committed(app: Service[Any], rows: Rows, task_ids: Collection[str]) -> None:
    """Send the messages of a transaction that has ended; log errors, because the transaction has not failed.

    Raises:
        SoftTimeLimitExceeded: the running task has reached its soft limit.
    """
    try:
        relay(app, rows, task_ids)
    except SoftTimeLimitExceeded:
        raise  # It concerns the task that commits, also in a coroutine, and is raised only once.
    except Exception:
        logger.exception(
            "%d messages not sent after their transaction; if it was committed, a relay will send them", len(task_ids)
        )


def run(
    app: Service[Any], rows: Rows, stop: threading.Event | None = None, interval_seconds: float = INTERVAL_SECONDS
) -> None:
    """Send rows until it is stopped; wait longer while the broker or the database is unavailable.

    Args:
        app: the application.
        rows: the table.
        stop: set it to end.
        interval_seconds: seconds between polls of the table.
    """
    stop = stop or threading.Event()
    pause, deferred_until = interval_seconds, 0.0
    while not stop.is_set():
        try:
            relayed = relay(app, rows)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:  # noqa: BLE001 - the database is unavailable
            logger.warning("outbox not relayed, retrying: %s", describe(error))
            failed = True
            rows.reconnect()
        else:
            failed = bool(relayed.unsent and not relayed.sent)
            if failed:
                deferred_until = time.monotonic() + RETRY_AFTER_SECONDS
            elif relayed.sent or time.monotonic() >= deferred_until:  # Before, rows that failed cannot be claimed.
                pause = interval_seconds
        if failed:
            pause = min(max(MAX_INTERVAL_SECONDS, interval_seconds), pause * 2)
        stop.wait(pause)


def in_thread(function: Callable[[], Value]) -> Value:
    """Call a function in another thread, with the context variables of this one, and return its result.

    What it sends joins no `batching` block of the caller, which could still be discarded, and is not taken for what the
    running task sends.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="outbox") as thread:
        return thread.submit(contextvars.copy_context().run, function).result()


def _send(app: Service[Any], rows: Sequence[Row]) -> dict[int, Exception]:
    """Send rows in one batch; return the errors of those that were not sent, by the ids of the rows."""
    unsent: dict[int, Exception] = {}
    try:
        with contextlib.nullcontext() if app.conf.task_always_eager else app.batching(CONNECTION_WITHIN_SECONDS):
            for row in rows:
                try:
                    _send_row(app, row)
                except Exception as error:  # noqa: BLE001 - one row must not hinder the others
                    unsent[row.id] = error
    except errors.NotAllSentError as error:
        reasons = {task_id: reason for task_id, _, reason in error.failed}
        unsent.update({row.id: RuntimeError(reasons[row.task_id]) for row in rows if row.task_id in reasons})
    except Exception as error:  # noqa: BLE001 - the broker is unavailable, or all connections are in use
        unsent.update({row.id: error for row in rows if row.id not in unsent})
    return unsent


def _send_row(app: Service[Any], row: Row) -> None:
    held = loads(row.message)
    options = {"task_id": row.task_id, "MessageGroupId": held["group"]}
    options.update(root_id=held["root_id"], parent_id=held["parent_id"])
    if held["due"] and held["due"] > datetime.now(timezone.utc):
        options["eta"] = held["due"]
    before = log_fields.request_id.set(held["request_id"])
    try:
        chosen = {name: value for name, value in options.items() if value is not None}
        with app.tracing.resumed(held.get("trace") or {}):
            app.find(row.task).signature(held["args"], held["kwargs"]).apply_async(**chosen)
    finally:
        log_fields.request_id.reset(before)


def _settle(rows: Rows, token: str, claimed: Sequence[Row], unsent: dict[int, Exception]) -> Relayed:
    """Delete, mark or release rows, and log what was not sent."""
    refused = {id_: error for id_, error in unsent.items() if isinstance(error, REFUSED)}
    later = [id_ for id_ in unsent if id_ not in refused]
    sent = [row.id for row in claimed if row.id not in unsent]
    if sent:
        rows.delete(token, sent)
    for row in claimed:
        if row.id in refused:
            reason = describe(refused[row.id])
            rows.fail(token, row.id, reason)
            logger.error("%s of the outbox can never be sent: %s", row.task, reason, extra={"task_id": row.task_id})
    if later:
        rows.defer(token, later, time.time() + RETRY_AFTER_SECONDS)
        logger.warning("%d messages of the outbox not sent, retrying: %s", len(later), describe(unsent[later[0]]))
    return Relayed(len(sent), len(refused), len(later))
