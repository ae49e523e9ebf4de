"""Messages in the worker's main process: passed to a task process, then deleted, released or dead-lettered.

The main process runs no code of a task and makes no request to a result backend. If a task process
dies before it has stored an outcome, another task process stores it.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
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

from . import consuming as consuming  # Replaces commands of Celery.
from . import errors, headers
from . import revoking as revoking  # Replaces commands of Celery.
from .backoff import backoff_seconds
from .contract import HAND_OVER_SECONDS, Queue
from .delivery import PERMANENT, Action, Verdict, age_seconds, deliver, record
from .failures import describe, reason_of
from .log_fields import log_outcome, task_fields
from .pool import Phase, announce_shutdown, new_mark, phase_of
from .signatures import CLIENT_SIGNATURE, CLIENT_VERSION, check_client

logger = logging.getLogger(__name__)

# The published types lack what is used here.
BaseRequest: Any = request.Request
BaseBlueprint: Any = consumer.Consumer.Blueprint
ExceptionWithTraceback: Any = einfo.ExceptionWithTraceback  # type: ignore[attr-defined]

SEND_EVENTS_EVERY_SECONDS = 0.5
"""Interval between messages with events, for Flower and other listeners on RabbitMQ."""

CONTENT_TYPE = "application/json"
"""The content type of messages, and the only one that workers accept."""

RECORD_MARGIN_SECONDS = 30
"""Time that storing an outcome in another process may take after its message became visible again."""


@signals.worker_shutting_down.connect(weak=False)
def _on_shutting_down(**rest: Any) -> None:
    announce_shutdown()


class TooManyDeliveriesError(InvalidTaskError):
    """A message was received more often than its queue allows."""


class Request(BaseRequest):  # type: ignore[misc]
    """One attempt at a task, as the worker's main process sees it.

    https://docs.celeryq.dev/en/stable/userguide/tasks.html#requests-and-custom-requests
    """

    time_limits: Any
    """Hard and soft limit: from the message at first, then the effective ones; see `effective_limits`."""
    acknowledged: bool
    kill_at: float | None = None
    """Monotonic time at which its process is killed although its outcome is stored."""
    accepted_at: float | None = None
    """Monotonic time at which a task process started it."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Remove the overrides of Celery's `create_request_cls`, which would bypass this class."""
        super().__init_subclass__(**options)
        for name in ("execute_using_pool", "on_success"):
            if name in cls.__dict__:
                delattr(cls, name)

    def __init__(self, message: Message, **options: Any) -> None:
        info = message.delivery_info
        chosen = options.get("headers") or message.headers
        headers.check(chosen, options["body"] if options.get("decoded") else message.payload)
        super().__init__(message, **options)
        if made_for := chosen.get(CLIENT_SIGNATURE):
            check_client(self.task, str(chosen.get(CLIENT_VERSION)), made_for)
        self.queue: Queue = self.app.queue_served(info["routing_key"])
        self.time_limits = effective_limits(self.queue, self.time_limits, self.task)
        self.hold_until: float = info["received_at"] + self.queue.hold_seconds
        self.mark = new_mark(self)
        due_at = self._due_at()
        self._check_deliverable()
        # The task sees these as `self.request.delivery_info`.
        self.delivery_info.update(delivery_facts(message, self.queue), mark=self.mark, due_at=due_at)
        self.delivery_info["start_before"] = self.hold_until - self.time_limits[0]
        self.is_last = self.delivery_info["is_last"]
        # Without this, the message body would be sent to the task process twice.
        self.request_dict["properties"] = properties_of(message)

    def _due_at(self) -> float | None:
        """Return the Unix time at which the message was sent, or its countdown ended; None if it has no time."""
        sent_at: float | None = self.message.delivery_info.get("sent_at")
        return sent_at if sent_at is None or self.eta is None else max(sent_at, self.eta.timestamp())

    def _check_deliverable(self) -> None:
        """Refuse a message that was received too often, or whose ETA exceeds its visibility timeout.

        Raises:
            InvalidTaskError: the reason.
        """
        attempt, most = self.message.delivery_info["receive_count"], self.queue.max_receive_count
        if attempt > most:
            raise TooManyDeliveriesError(
                f"received {attempt} times, more than max_receive_count {most}: its workers died or held it too long"
            )
        if self.eta is not None:
            wait = (self.eta - datetime.now(timezone.utc)).total_seconds()
            if wait <= 0:  # A time far in the past overflows the timer.
                self._eta = None
            longest = self.hold_until - time.monotonic() - self.time_limits[0] - HAND_OVER_SECONDS / 2
            if wait > longest:
                raise InvalidTaskError(
                    f"its ETA is in {wait:.0f} seconds, but a worker can hold it for {longest:.0f} before it is "
                    f"redelivered. Send it with this service's application, which delays or refuses it"
                )

    def execute_using_pool(self, pool: Any, **options: Any) -> Any:
        """Run the task in a task process.

        Raises:
            celery.exceptions.TaskRevokedError: the task was revoked.
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
        """Record that a task process has started the task."""
        self.accepted_at = time_accepted
        super().on_accepted(pid, time_accepted)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Log that a task exceeded its soft limit; `on_failure` handles the hard limit."""
        if soft:
            logger.warning("soft limit of %s s exceeded", timeout, extra=self.fields())

    def on_success(self, verdict: Verdict, **rest: Any) -> None:
        """Carry out the verdict of the task process."""
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
        """Handle a task whose process died or was killed at its hard limit."""
        state.task_ready(self)
        error = _error(exc_info)
        phase = phase_of(self.mark)
        if phase is Phase.FAILED:
            aborted = errors.TaskAbortedError("the task process ended after the failure was stored; see its result")
            self._end(Verdict(Action.DEAD_LETTER, "dead_lettered", 0, reason_of(aborted, self.attempt)), error)
        elif phase > Phase.ENDED:
            self._end(Verdict(Action.DELETE, phase.name.lower()), error)
        elif not (self._already_cancelled or self._already_revoked or state.should_terminate):
            self.record(states.FAILURE, error)
            # The process that stores the outcome logs whether it is final.
            logger.warning("task process ended: %s", describe(error), extra=self.fields())
        # Otherwise it was cancelled or revoked, or the worker is stopping and releases its messages.

    @property
    def attempt(self) -> int:
        """The receive count of its message."""
        return int(self.delivery_info["receive_count"])

    def fields(self) -> dict[str, Any]:
        """Return the task's log fields; see `task_fields`."""
        return task_fields(self.name, self._context)

    def record(self, new_state: str, error: BaseException) -> None:
        """Store the task's state in another task process, then settle its message."""
        stored_error = error if isinstance(error, Exception) else WorkerLostError(describe(error))
        body = (self.body, self.content_type, self.content_encoding)
        self.delivery_info.update(self._ran())
        recording = Recording(self.type, self.id, self.request_dict, body, new_state, stored_error, self.carry_out)
        self.app.consumer.on_task_request(recording)

    def carry_out(self, verdict: Verdict) -> None:
        """Delete, release or dead-letter the message, unless that has been done."""
        if not self.acknowledged:
            self.acknowledged = True
            carry_out(self.message, verdict)

    def _end(self, verdict: Verdict, error: BaseException) -> None:
        """Carry out and log what the task process stored before it died."""
        self.carry_out(verdict)
        level = logging.ERROR if verdict.action is Action.DEAD_LETTER else logging.WARNING
        self._log(verdict, f"; the task process ended afterwards: {describe(error)}", level)

    def _log(self, verdict: Verdict, suffix: str = "", level: int = logging.WARNING) -> None:
        ran = self._ran()
        timed = verdict._replace(runtime_seconds=ran["ran_for_seconds"], age_seconds=ran["age_seconds"])
        log_outcome(logger, level, self.fields(), timed, suffix)

    def _ran(self) -> dict[str, Any]:
        """Return for how long a task process has run the task, and the age of the message when it began."""
        if not self.accepted_at:
            return {"ran_for_seconds": 0, "age_seconds": None}
        seconds = time.monotonic() - self.accepted_at
        return {"ran_for_seconds": seconds, "age_seconds": age_seconds(self.delivery_info, time.time() - seconds)}

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Store REVOKED in a task process, and delete the message."""
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
        """Log the cancellation, but do not store RETRY: the redelivered task may have started elsewhere."""
        state.task_ready(self)
        self._already_cancelled = True
        self.send_event("task-cancelled")
        if phase_of(self.mark) <= Phase.ENDED:  # Otherwise `on_failure` logs the outcome.
            self._log(Verdict(Action.RELEASE, "interrupted"))


_EVENTS = {
    "succeeded": "task-succeeded",
    "ignored": "task-succeeded",
    "retrying": "task-retried",
    "interrupted": "task-retried",
    "retry_requested": "task-retried",
}
"""The Celery event of each outcome, for Flower and other listeners; all others send `task-failed`."""


class Recording:
    """An outcome that a task process is to store; it has the interface of a request for the worker."""

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
        """Store the outcome in a task process."""
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
        """Settle the message if its outcome could not be stored, or if the storing process ended."""
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
        fields = task_fields(self.name, Context(headers.valid(self._request_dict)))
        verdict = verdict._replace(runtime_seconds=info.get("ran_for_seconds", 0), age_seconds=info.get("age_seconds"))
        suffix = f"; the task process ended while it stored the state {self._state}"
        log_outcome(logger, logging.ERROR, fields, verdict, suffix, self._error)


class WaitingRequests:
    """Requests that wait for a task process, in a worker of several queues.

    The most urgent queue goes first, and within a queue the request that came first. A request of any
    queue that would start too late if it had to wait for another task goes before all others, so that
    the broker does not redeliver its message.
    """

    def __init__(self, start: Callable[[Any], None], queues: Sequence[Queue]) -> None:
        self._start = start
        self._urgency = {queue.name: number for number, queue in enumerate(queues)}
        self._longest_seconds = max(queue.hard_limit_seconds for queue in queues)
        self._waiting: list[Any] = []

    def add(self, request: Any) -> None:
        """Add a request; it starts when a task process is free."""
        self._waiting.append(request)
        self._start(self)

    def execute_using_pool(self, pool: Any) -> Any:
        """Start the request whose turn it is; Celery calls this, once per request, when a task process is free."""
        request = min(self._waiting, key=self._turn)  # Of equals it returns the first.
        self._waiting.remove(request)
        return request.execute_using_pool(pool)

    def _turn(self, request: Any) -> tuple[float, float]:
        """Return what requests are sorted by; the lowest is first."""
        if isinstance(request, Recording):  # It is short, and its message is settled only when it has ended.
            return (-2, 0)
        start_by = request.hold_until - request.time_limits[0] - self._longest_seconds
        if start_by < time.monotonic():
            return (-1, start_by)
        # A queue that remote control has added comes last.
        return (self._urgency.get(request.queue.name, len(self._urgency)), 0)


class Consumer(consumer.Consumer):
    """Celery's consumer, without its deletion of messages that were not processed."""

    on_task_request: Callable[[Any], None]
    connection_errors: tuple[type[Exception], ...]
    event_dispatcher: Any
    hub: Any
    paused: set[str]
    """Names in Celery of the queues that are left out, on RabbitMQ."""
    _flush_is_scheduled = False

    class Blueprint(BaseBlueprint):  # type: ignore[misc]
        """Celery's steps, except that the transport declares the queues for delayed messages."""

        default_steps = tuple(step for step in BaseBlueprint.default_steps if not step.endswith(":DelayedDelivery"))

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        app: Any = self.app
        app.consumer = self
        self.paused = set()
        # Asked for now, before queues that are paused are left out.
        if len(app.queues_consumed) > 1:
            self.on_task_request = WaitingRequests(self.on_task_request, app.queues_consumed).add

    def on_send_event_buffered(self) -> None:  # type: ignore[override]
        """Send buffered events twice a second; Celery sends those of each turn of its event loop."""
        if not self._flush_is_scheduled:
            self._flush_is_scheduled = True
            self.hub.call_later(SEND_EVENTS_EVERY_SECONDS, self._send_events)

    def _send_events(self) -> None:
        self._flush_is_scheduled = False
        if self.event_dispatcher:
            self.event_dispatcher.flush()

    def update_strategies(self) -> None:
        """Use `Request` for every task, whatever its base class. Celery calls this before it consumes."""
        app: Any = self.app
        app.broker.prepare_consumer(self)
        for task in self.app.tasks.values():
            task.Request = f"{__name__}:Request"
        super().update_strategies()

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Message], None]:
        """Return the handler of messages; an error in one message does not stop the worker."""
        handle = super().create_task_handler(*args, **options)
        connection_errors = self.connection_errors

        def on_message(message: Message) -> None:
            assume_content_type(message)
            try:
                handle(message)
            except connection_errors:
                raise
            except Exception as error:  # noqa: BLE001
                self._return(message, error, f"message cannot be processed: {describe(error)}")

        return on_message

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Release a message whose body cannot be decoded; Celery would delete it."""
        self._return(message, exc, f"message body cannot be decoded: {describe(exc)}")

    def on_unknown_message(self, body: Any, message: Message) -> None:
        """Release a message that is not a Celery message; Celery would log its whole body."""
        error = errors.InvalidMessageError("not a Celery message")
        self._return(message, error, "not a Celery message")

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Dead-letter an invalid message; Celery would log its arguments."""
        too_often = isinstance(exc, TooManyDeliveriesError)
        kind = errors.DeliveredTooOftenError if too_often else errors.InvalidMessageError
        self._end(message, kind(str(exc)))

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Release a message whose task is unknown, for a newer worker; Celery would fail the task."""
        fields = _fields(message)
        logger.warning(
            "task %s is unknown to this worker; is the producer newer than the worker?",
            fields.get("task"),
            extra=fields,
        )
        self._end(message, NotRegistered(fields.get("task")))

    def _end(self, message: Message, error: Exception) -> None:
        """Store in a task process that a task failed, then settle its message."""
        received = message.headers if isinstance(message.headers, Mapping) else {}
        task, task_id = (headers.valid(received).get(name) for name in headers.REQUIRED)
        if not (task and task_id):  # Version 1 of Celery's protocol has them in the body.
            self._return(message, error, describe(error), final=isinstance(error, PERMANENT))
            return
        queue = self._queue_of(message)
        facts = {**received, "properties": properties_of(message), "delivery_info": delivery_facts(message, queue)}
        body = (message.body, message.content_type, message.content_encoding)
        recording = Recording(task, task_id, facts, body, states.FAILURE, error, partial(carry_out, message))
        self.on_task_request(recording)

    def _return(self, message: Message, error: Exception, why: str, *, final: bool = False) -> None:
        """Release a message; dead-letter it at its last attempt, or if `final`."""
        queue, attempt = self._queue_of(message), message.delivery_info["receive_count"]
        if final or attempt >= queue.max_receive_count:
            verdict = Verdict(Action.DEAD_LETTER, "dead_lettered", 0, reason_of(error, attempt))
            level = logging.ERROR
        else:
            verdict = Verdict(Action.RELEASE, "retrying", backoff_seconds(queue, attempt))
            level = logging.WARNING
        carry_out(message, verdict)
        log_outcome(logger, level, _fields(message), verdict, f"; {why}")

    def _queue_of(self, message: Message) -> Queue:
        app: Any = self.app
        queue: Queue = app.queue_served(message.delivery_info["routing_key"])
        return queue


def effective_limits(queue: Queue, chosen: Any, task: Any) -> tuple[int | float, int | float | None]:
    """Return the hard and soft limit of an attempt.

    The producer's limits take precedence over the task's, and those over the queue's. The queue's
    limits are the maximum.

    Args:
        queue: the queue of the message.
        chosen: hard and soft limit in the message, in seconds or None.
        task: the task.

    Returns:
        Hard and soft limit in seconds; the soft limit is None if it is not below the hard limit.
    """
    hard = min(chosen[0] or task.time_limit or queue.hard_limit_seconds, queue.hard_limit_seconds)
    soft = min(chosen[1] or task.soft_time_limit or queue.soft_limit_seconds, queue.soft_limit_seconds)
    return hard, (soft if soft < hard else None)


def delivery_facts(message: Message, queue: Queue) -> dict[str, Any]:
    """Return the `delivery_info` that a task process and the task receive."""
    info = message.delivery_info
    return {
        "routing_key": info["routing_key"],
        "receive_count": info["receive_count"],
        "redelivered": info["receive_count"] > 1,
        "is_last": info["receive_count"] >= queue.max_receive_count,
        "hold_until": info["received_at"] + queue.hold_seconds,
    }


def _fields(message: Message) -> dict[str, Any]:
    """Return the log fields of a message for which there is no request."""
    received = headers.valid(message.headers) if isinstance(message.headers, Mapping) else {}
    request = Context({**received, "properties": properties_of(message), "delivery_info": message.delivery_info})
    return task_fields(received.get("task"), request)


def properties_of(message: Message) -> dict[str, Any]:
    """Return the properties of a message without `delivery_info`, which contains the body."""
    return {name: value for name, value in message.properties.items() if name != "delivery_info"}


def assume_content_type(message: Message) -> None:
    """Assume the content type of a task's message if it has none, as of producers in other languages."""
    if isinstance(message.headers, Mapping) and "task" in message.headers and not message.content_type:
        message.content_type = CONTENT_TYPE


def carry_out(message: Message, verdict: Verdict) -> None:
    """Delete, release or dead-letter a message."""
    message.delivery_info.update(release_after_seconds=verdict.redelivery_in_seconds, reason=verdict.reason)
    if verdict.action is Action.DELETE:
        message.ack_log_error(logger, (Exception,))
    else:
        message.reject_log_error(logger, (Exception,), requeue=verdict.action is Action.RELEASE)


def _error(exc_info: einfo.ExceptionInfo) -> BaseException:
    """Return the exception, unwrapped: billiard wraps it to keep its traceback."""
    error: Any = exc_info.exception
    found: BaseException = error.exc if isinstance(error, ExceptionWithTraceback) else error
    if isinstance(found, TimeLimitExceeded):
        return TimeLimitExceeded(*found.args)
    return found
