"""Messages in the worker's main process: handed to a task process, and then deleted, released or dead-lettered.

The main process neither runs a task's code nor asks a result backend. What a process that died could not store, another
task process does.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from typing import Any

from billiard import einfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals, states
from celery.app.task import Context
from celery.exceptions import InvalidTaskError, NotRegistered, TaskRevokedError
from celery.worker import consumer, request, state
from kombu.message import Message

from . import errors, headers
from .backoff import backoff_seconds
from .contract import HAND_OVER_SECONDS, Queue
from .delivery import PERMANENT, Action, Verdict, deliver, record
from .failures import describe, reason_of
from .logs import log_outcome, task_fields
from .pool import Phase, announce_shutdown, new_mark, phase_of

logger = logging.getLogger(__name__)

# Their published types lack what is used here.
BaseRequest: Any = request.Request
ExceptionWithTraceback: Any = einfo.ExceptionWithTraceback  # type: ignore[attr-defined]

RECORD_MARGIN_SECONDS = 30
"""What storing an outcome in another process may take beyond the time in which its message is invisible."""


@signals.worker_shutting_down.connect(weak=False)
def _on_shutting_down(**rest: Any) -> None:
    announce_shutdown()


class TooManyDeliveriesError(InvalidTaskError):
    """A message was received more often than its queue allows."""


class Request(BaseRequest):  # type: ignore[misc]
    """One attempt at a task, in the worker's main process.

    https://docs.celeryq.dev/en/stable/userguide/tasks.html#requests-and-custom-requests
    """

    time_limits: Any
    """Hard and soft limit that the sender chose; then those that hold."""
    acknowledged: bool
    kill_at: float | None = None
    """When its process is killed although its outcome is stored, in seconds of the monotonic clock."""
    accepted_at: float | None = None
    """When a task process began with it, in seconds of the monotonic clock."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Undo what Celery's `create_request_cls` overrides to be faster, as it would go past what is here."""
        super().__init_subclass__(**options)
        for name in ("execute_using_pool", "on_success"):
            if name in cls.__dict__:
                delattr(cls, name)

    def __init__(self, message: Message, **options: Any) -> None:
        info = message.delivery_info
        chosen = options.get("headers") or message.headers
        headers.check(chosen, options["body"] if options.get("decoded") else message.payload)
        super().__init__(message, **options)
        self.queue: Queue = self.app.queue_served(info["routing_key"])
        self.time_limits = effective_limits(self.queue, self.time_limits, self.task)
        self.hold_until: float = info["received_at"] + self.queue.hidden_seconds
        self.mark = new_mark(self)
        self._check_deliverable()
        # What the task gets to know, as `self.request.delivery_info`.
        self.delivery_info.update(delivery_facts(message, self.queue), mark=self.mark)
        self.delivery_info["start_before"] = self.hold_until - self.time_limits[0]
        self.is_last = self.delivery_info["is_last"]
        # The message as it was received would go to the task's process a second time.
        self.request_dict["properties"] = properties_of(message)

    def _check_deliverable(self) -> None:
        """Refuse a message that no attempt could honour.

        Raises:
            InvalidTaskError: why.
        """
        attempt, most = self.message.delivery_info["receive_count"], self.queue.max_receive_count
        if attempt > most:
            raise TooManyDeliveriesError(
                f"received {attempt} times, and max_receive_count is {most}: its workers died, or held it for too long"
            )
        if self.eta is not None:
            wait = (self.eta - datetime.now(timezone.utc)).total_seconds()
            if wait <= 0:  # It may be so long ago that no timer can be told.
                self._eta = None
            longest = self.hold_until - time.monotonic() - self.time_limits[0] - HAND_OVER_SECONDS / 2
            if wait > longest:
                raise InvalidTaskError(
                    f"its ETA is in {wait:.0f} seconds, and this worker could hold it for {longest:.0f}: it would be "
                    f"delivered again meanwhile. Send it by this service's own code, which refuses or delays it"
                )

    def execute_using_pool(self, pool: Any, **options: Any) -> Any:
        """Have a task process run the task.

        Raises:
            celery.exceptions.TaskRevokedError: it was revoked.
        """
        if self.revoked():
            raise TaskRevokedError(self.id)
        hard, soft = self.time_limits
        result = pool.apply_async(
            deliver,
            args=(self.type, self.id, self.request_dict, self.body, self.content_type, self.content_encoding),
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=soft,
            timeout=hard,
            correlation_id=self.id,
        )
        if result is not None:
            self._apply_result = weakref.ref(result)
        return result

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Note that a task process has begun."""
        self.accepted_at = time_accepted
        super().on_accepted(pid, time_accepted)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Say that a task is over its soft limit; `on_failure` hears of the hard one."""
        if soft:
            logger.warning("soft limit of %s s exceeded", timeout, extra=self.fields())

    def on_success(self, verdict: Verdict, **rest: Any) -> None:
        """Do what the task process has decided."""
        state.task_ready(self, successful=verdict.outcome == "succeeded")
        self.carry_out(verdict)
        kind = _EVENTS.get(verdict.outcome, "task-failed")
        if kind == "task-succeeded":
            self.send_event(kind, result=verdict.text, runtime=verdict.runtime_seconds)
        else:
            self.send_event(kind, exception=verdict.text, traceback="")

    def on_failure(
        self, exc_info: einfo.ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """See to a task whose process died, or was killed at the hard limit."""
        state.task_ready(self)
        error = _error(exc_info)
        phase = phase_of(self.mark)
        if phase is Phase.FAILED:
            told = errors.TaskAbortedError("the task's process ended after its failure was stored; see its result")
            self._end(Verdict(Action.DEAD_LETTER, "dead_lettered", 0, reason_of(told, self.attempt)), error)
        elif phase > Phase.ENDED:
            self._end(Verdict(Action.DELETE, phase.name.lower()), error)
        elif not (self._already_cancelled or self._already_revoked or state.should_terminate):
            logger.error("task process ended: %s", describe(error), extra=self.fields())
            self.record(states.FAILURE, error)
        # Else it was ended by whoever cancelled or revoked it, or the worker is stopping and releases what it holds.

    @property
    def attempt(self) -> int:
        """Receive count of its message."""
        return int(self.delivery_info["receive_count"])

    def fields(self) -> dict[str, Any]:
        """Return the fields of log lines about it."""
        return task_fields(self.name, self._context)

    def record(self, new_state: str, error: BaseException) -> None:
        """Have another task process store what became of the task, and then see to its message."""
        told = error if isinstance(error, Exception) else WorkerLostError(describe(error))
        body = (self.body, self.content_type, self.content_encoding)
        recording = Recording(self.type, self.id, self.request_dict, body, new_state, told, self.carry_out)
        self.app.consumer.on_task_request(recording)

    def carry_out(self, verdict: Verdict) -> None:
        """Delete, release or dead-letter the message, unless that is done."""
        if not self.acknowledged:
            self.acknowledged = True
            carry_out(self.message, verdict)

    def _end(self, verdict: Verdict, error: BaseException) -> None:
        """Carry out and log what the task process stored before it died."""
        self.carry_out(verdict)
        level = logging.ERROR if verdict.action is Action.DEAD_LETTER else logging.WARNING
        self._log(verdict, f"; its process ended then: {describe(error)}", level)

    def _log(self, verdict: Verdict, suffix: str = "", level: int = logging.WARNING) -> None:
        ran_for_seconds = time.monotonic() - self.accepted_at if self.accepted_at else 0
        log_outcome(logger, level, self.fields(), verdict._replace(runtime_seconds=ran_for_seconds), suffix)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Store REVOKED, in a task process, and delete the message."""
        state.task_ready(self)
        self._already_revoked = True
        self.send_event("task-revoked", terminated=terminated, signum=signum, expired=expired)
        if self.store_errors or self.chord:
            self.record(states.REVOKED, TaskRevokedError(reason))
        else:
            verdict = Verdict(Action.DELETE, "revoked")
            self.carry_out(verdict)
            self._log(verdict)
        signals.task_revoked.send(
            self.task, request=self._context, terminated=terminated, signum=signum, expired=expired
        )

    def _announce_cancelled(self, emit_retry: bool = True) -> None:
        """Leave the result of a task that is cancelled here as it is: it is done again, and has begun by then maybe."""
        state.task_ready(self)
        self._already_cancelled = True
        self.send_event("task-cancelled")
        if phase_of(self.mark) <= Phase.ENDED:  # Else `on_failure` says what it ended with.
            self._log(Verdict(Action.RELEASE, "interrupted"))


_EVENTS = {
    "succeeded": "task-succeeded",
    "ignored": "task-succeeded",
    "retrying": "task-retried",
    "interrupted": "task-retried",
    "retry_requested": "task-retried",
}
"""What Flower and others who listen to events are told; of all else, that the task failed."""


class Recording:
    """What a task ended with, to be stored by a task process; the worker takes it for a request."""

    def __init__(
        self,
        name: str,
        task_id: str,
        request_dict: dict[str, Any],
        body: tuple[Any, str | None, str | None],
        new_state: str,
        error: Exception,
        carry_out: Callable[[Verdict], None],
    ) -> None:
        self.name, self.id = name, task_id
        self._request_dict, self._body = request_dict, body
        self._state, self._error = new_state, error
        self._carry_out = carry_out

    def execute_using_pool(self, pool: Any) -> None:
        """Have a task process store it."""
        info = self._request_dict["delivery_info"]
        info["mark"] = new_mark(self)
        seconds = max(1.0, info["hold_until"] - time.monotonic()) + RECORD_MARGIN_SECONDS
        result = pool.apply_async(
            record,
            args=(self.name, self.id, self._request_dict, self._body, self._state, self._error),
            callback=self._carry_out,
            error_callback=self._lost,
            timeout=seconds,
        )
        if result is None:  # The pool is stopping.
            self._lost(None)

    def _lost(self, exc_info: einfo.ExceptionInfo | None) -> None:
        """Settle the message when its outcome could not be stored, or the process that stored it ended."""
        info = self._request_dict["delivery_info"]
        stored = phase_of(info["mark"]) is Phase.FAILED
        if self._state == states.REVOKED:
            verdict = Verdict(Action.DELETE, "revoked")
        elif stored or info["is_last"] or isinstance(self._error, PERMANENT):
            reason = reason_of(self._error, info["receive_count"])
            verdict = Verdict(Action.DEAD_LETTER, "dead_lettered", 0, reason)
        else:
            verdict = Verdict(Action.RELEASE, "interrupted")
        self._carry_out(verdict)
        fields = task_fields(self.name, Context(self._request_dict))
        suffix = f"; the process that was to store its state {self._state} ended"
        log_outcome(logger, logging.ERROR, fields, verdict, suffix, self._error)


class Consumer(consumer.Consumer):
    """Celery's consumer of messages, which deletes none that was not worked on."""

    on_task_request: Callable[[Any], None]
    connection_errors: tuple[type[Exception], ...]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        app: Any = self.app
        app.consumer = self

    def update_strategies(self) -> None:
        """Let every task be delivered in the same way, whatever its base."""
        for task in self.app.tasks.values():
            task.Request = f"{__name__}:Request"
        super().update_strategies()

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Message], None]:
        """Return what is called with each message; an error of one message does not stop the worker."""
        handle = super().create_task_handler(*args, **options)
        connection_errors = self.connection_errors

        def on_message(message: Message) -> None:
            try:
                handle(message)
            except connection_errors:
                raise
            except Exception as error:  # noqa: BLE001
                self._leave(message, error, f"it cannot be worked on: {describe(error)}")

        return on_message

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Release a message whose body cannot be read; Celery would delete it."""
        self._leave(message, exc, f"its body cannot be read: {describe(exc)}")

    def on_unknown_message(self, body: Any, message: Message) -> None:
        """Release what is no Celery message; Celery would log all of it, and call it deleted."""
        error = errors.InvalidMessageError("not a Celery message")
        self._leave(message, error, "not a Celery message")

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Dead-letter a message that asks for what cannot be; Celery would log its arguments."""
        too_often = isinstance(exc, TooManyDeliveriesError)
        kind = errors.DeliveredTooOftenError if too_often else errors.InvalidMessageError
        self._end(message, kind(str(exc)))

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Release a message for a worker that knows its task; Celery would log its arguments, and call it failed."""
        fields = _fields(message)
        logger.error(
            "task %s is unknown to this worker; was the worker deployed before its sender?",
            fields.get("task"),
            extra=fields,
        )
        self._end(message, NotRegistered(fields.get("task")))

    def _end(self, message: Message, error: Exception) -> None:
        """Have a task process store that a task failed, and see to its message."""
        told = message.headers if isinstance(message.headers, Mapping) else {}
        task, task_id = (headers.valid(told).get(name) for name in headers.REQUIRED)
        if not (task and task_id):  # Older versions of Celery's messages have theirs elsewhere.
            self._leave(message, error, describe(error), final=isinstance(error, PERMANENT))
            return
        queue = self._queue_of(message)
        facts = {**told, "properties": properties_of(message), "delivery_info": delivery_facts(message, queue)}
        body = (message.body, message.content_type, message.content_encoding)
        recording = Recording(task, task_id, facts, body, states.FAILURE, error, partial(carry_out, message))
        self.on_task_request(recording)

    def _leave(self, message: Message, error: Exception, why: str, *, final: bool = False) -> None:
        """Release a message; at its last delivery, or if that is final, dead-letter it with why."""
        queue, attempt = self._queue_of(message), message.delivery_info["receive_count"]
        if final or attempt >= queue.max_receive_count:
            verdict = Verdict(Action.DEAD_LETTER, "dead_lettered", 0, reason_of(error, attempt))
        else:
            verdict = Verdict(Action.RELEASE, "retrying", backoff_seconds(queue, attempt))
        carry_out(message, verdict)
        log_outcome(logger, logging.ERROR, _fields(message), verdict, f"; {why}")

    def _queue_of(self, message: Message) -> Queue:
        app: Any = self.app
        queue: Queue = app.queue_served(message.delivery_info["routing_key"])
        return queue


def effective_limits(queue: Queue, chosen: Any, task: Any) -> tuple[int | float, int | float | None]:
    """Return the hard and soft limit of a task: its sender's, its own, or its queue's, which neither may exceed.

    Args:
        queue: that its message came from.
        chosen: hard and soft limit that its sender chose, or none.
        task: with its own.

    Returns:
        Both in seconds; no soft limit where the hard one comes first.
    """
    hard = min(chosen[0] or task.time_limit or queue.hard_limit_seconds, queue.hard_limit_seconds)
    soft = min(chosen[1] or task.soft_time_limit or queue.soft_limit_seconds, queue.soft_limit_seconds)
    return hard, (soft if soft < hard else None)


def delivery_facts(message: Message, queue: Queue) -> dict[str, Any]:
    """Return what a task process, and the task, get to know of a delivery."""
    info = message.delivery_info
    return {
        "routing_key": info["routing_key"],
        "receive_count": info["receive_count"],
        "redelivered": info["receive_count"] > 1,
        "is_last": info["receive_count"] >= queue.max_receive_count,
        "hold_until": info["received_at"] + queue.hidden_seconds,
    }


def _fields(message: Message) -> dict[str, Any]:
    """Return the fields of log lines about a message that is no task's yet."""
    told = headers.valid(message.headers) if isinstance(message.headers, Mapping) else {}
    request = Context({**told, "properties": properties_of(message), "delivery_info": message.delivery_info})
    return task_fields(told.get("task"), request)


def properties_of(message: Message) -> dict[str, Any]:
    """Return the properties of a message without what tells of its delivery: bodies are in that."""
    return {name: value for name, value in message.properties.items() if name != "delivery_info"}


def carry_out(message: Message, verdict: Verdict) -> None:
    """Delete, release or dead-letter a message."""
    message.delivery_info.update(release_after_seconds=verdict.redelivery_in_seconds, reason=verdict.reason)
    if verdict.action is Action.DELETE:
        message.ack_log_error(logger, (Exception,))
    else:
        message.reject_log_error(logger, (Exception,), requeue=verdict.action is Action.RELEASE)


def _error(exc_info: einfo.ExceptionInfo) -> BaseException:
    """Return the error itself, which billiard wraps to keep its traceback."""
    error: Any = exc_info.exception
    found: BaseException = error.exc if isinstance(error, ExceptionWithTraceback) else error
    if isinstance(found, TimeLimitExceeded):
        return TimeLimitExceeded(*found.args)
    return found
