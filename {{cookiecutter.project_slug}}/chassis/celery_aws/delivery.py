"""One attempt at a task, in the task process: it runs the task, and decides, stores and logs the outcome.

The worker's main process passes a message and gets a `Verdict` back: delete the message, release it
for another attempt, or move it to the dead-letter queue. The main process makes no request to a
result backend.

A final state is stored once. A failed attempt that will be followed by another one stores RETRY,
which is not final, so neither errbacks nor chords are called. A task whose code has returned is not
run again: storing its result is retried while the message is invisible to other workers, and then
handed over to a separate message; see storing.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import celery
from billiard import common
from billiard.einfo import ExceptionInfo
from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery import current_app as _current_app
from celery import signals, states
from celery.app import task as task_module
from celery.app.task import Context
from celery.app.trace import TraceInfo, build_tracer
from celery.exceptions import Reject, Retry
from kombu.serialization import loads, prepare_accept_content

from . import errors
from .backoff import backoff_seconds
from .contract import HAND_OVER_SECONDS, Queue
from .failures import MAX_REASON_CHARACTERS, describe, reason_of, storable
from .headers import completed, valid
from .log_fields import log_outcome, request_id, task_fields
from .pool import Phase, is_shutting_down, set_phase
from .signatures import as_arguments_error

logger = logging.getLogger(__name__)

# The published types lack what is used here.
current_app: Any = _current_app
_common: Any = common
get_actual_ignore_result: Any = task_module.get_actual_ignore_result  # type: ignore[attr-defined]

STORE_FOR_SECONDS = 600
"""How long a task process waits for an unavailable result backend, if its message stays invisible as long."""

STORE_RETRY_FOR_SECONDS = 5
"""How long it waits to store RETRY, which is not final."""

REQUEST_SECONDS = 15
"""Time limit of one request to the result backend; the client's own timeout restarts with every byte received."""

RESERVE_SECONDS = HAND_OVER_SECONDS
"""Time kept in reserve, before a message becomes visible, to hand over its outcome and delete it."""


class Action(Enum):
    """What the main process does with a message."""

    DELETE = "delete"
    RELEASE = "release"
    DEAD_LETTER = "dead-letter"


class Verdict(NamedTuple):
    """The end of an attempt."""

    action: Action
    outcome: str
    """The value of `outcome` in the log line."""
    redelivery_in_seconds: float = 0
    """Delay before a released message is redelivered: 0 to the queue's visibility timeout."""
    reason: Mapping[str, str] | None = None
    """Why the message is dead-lettered; stored with the message. See `reason_of`."""
    runtime_seconds: float = 0
    """How long the task's code ran."""
    age_seconds: float | None = None
    """How long the message had been due when the attempt began; None if it did not begin, or if that is not known."""
    text: str = ""
    """The return value or the error, cut to `MAX_REASON_CHARACTERS`."""


class Redelivered(Retry):
    """Stored as RETRY: the attempt failed, and the message will be redelivered."""


class Unavailable(BaseException):
    """The result backend or the broker stayed unavailable for as long as the attempt could wait.

    Not an `Exception`: while Celery joins a chord, it treats any `Exception` as a failure of the chord.
    """


@dataclass
class Attempt:
    """The attempt that this task process is working on."""

    task_id: str
    queue: Queue
    queue_name: str
    """Name of the queue in Celery."""
    number: int
    """Receive count of the message."""
    is_last: bool
    hold_until: float
    """Monotonic time at which the message may become visible to other workers."""
    mark: int
    """Index of the shared byte that holds its phase; see pool.py."""
    phase: Phase = Phase.WAITING
    has_returned: bool = False
    """Whether the task's code returned, and did not raise."""
    store_until: float = 0
    """Monotonic time until which storing the outcome is retried; 0 while the task's code runs."""
    unavailable: bool = False
    """Whether retrying requests to the result backend has stopped."""
    request_in_progress: bool = False
    """Whether a request to the result backend is in progress."""
    hands_over: bool = True
    """Whether the outcome may be handed over to a separate message."""
    retry_sent: bool = False
    """Whether the task has sent its retry by `self.retry()`."""
    handed_over: bool = False
    """Whether the outcome was handed over to a separate message."""
    verdict: Verdict | None = None
    error: BaseException | None = None
    """The error to log."""
    text: str = ""
    """The return value, as Celery shows it in events."""
    level: int = logging.INFO
    began: float = field(default_factory=time.monotonic)
    runtime_seconds: float = 0
    """How long the task's code ran, once it has ended."""
    age_seconds: float | None = None
    """See `Verdict`."""

    @classmethod
    def of(cls, app: Any, task_id: str, info: dict[str, Any]) -> Attempt:
        """Return the attempt that a `delivery_info` describes.

        Raises:
            UnknownNameError: the queue is not in the contract.
        """
        return cls(
            task_id=task_id,
            queue=app.queue_served(info["routing_key"]),
            queue_name=info["routing_key"],
            number=info["receive_count"],
            is_last=info["is_last"],
            hold_until=info["hold_until"],
            mark=info["mark"],
        )

    def enter(self, phase: Phase) -> None:
        """Set the phase, also for the main process."""
        self.phase = phase
        set_phase(self.mark, phase)

    @property
    def reported_error(self) -> BaseException | None:
        """The error, unless it is one that the task expects; see Celery's `throws`."""
        return self.error if self.level > logging.INFO else None

    def settle(self) -> None:
        """Record that the outcome is stored or handed over."""
        if not self.store_until:  # A state that the task's own code stores is not its outcome.
            return
        if self.verdict is None:
            self.enter(Phase.SUCCEEDED)
        elif self.verdict.action is Action.DEAD_LETTER:
            self.enter(Phase.FAILED)
        else:
            self.enter(Phase[self.verdict.outcome.upper()])

    def end(self) -> None:
        """Mark the task's code as ended: time limits no longer apply, and requests to the backend are retried."""
        now = time.monotonic()
        _ignore_soft_limit()
        self.enter(Phase.ENDED)
        if not self.store_until:
            self.runtime_seconds = now - self.began
            self.store_until = max(now, min(self.hold_until - RESERVE_SECONDS, now + STORE_FOR_SECONDS))

    def may_wait(self, seconds: float) -> bool:
        """Sleep before the next request to the result backend.

        Returns:
            False, without sleeping to the end, if there is no time left or the worker is stopping.
        """
        end = time.monotonic() + seconds
        if self.unavailable or is_shutting_down() or end > self.store_until:
            return False
        while (left := end - time.monotonic()) > 0 and not is_shutting_down():
            time.sleep(min(left, 0.5))
        return not is_shutting_down()


current: Attempt | None = None
"""The attempt that this process is working on; None in other processes and between tasks."""


def working_on() -> Attempt:
    """Return the attempt that this process is working on.

    Raises:
        RuntimeError: no attempt is in progress.
    """
    if current is None:
        raise RuntimeError("no attempt is in progress in this process")
    return current


# The entry points of a task process


def deliver(
    name: str, task_id: str, request: dict[str, Any], body: Any, content_type: str | None, content_encoding: str | None
) -> Verdict:
    """Run a task once. The pool calls this in a task process instead of Celery's `trace_task_ret`."""
    app = current_app._get_current_object()
    task = app.tasks[name]
    attempt = Attempt.of(app, task_id, request["delivery_info"])
    with _working_on(attempt), app.tracing.attempt(name, request) as settle:
        # If it was prefetched too long ago, it could run longer than its visibility timeout.
        if attempt.began <= request["delivery_info"]["start_before"]:
            attempt.age_seconds = age_seconds(request["delivery_info"], time.time())
            _run(attempt, task, request, (body, content_type, content_encoding))
        verdict = _final_verdict(attempt)
        _log(attempt, verdict, task.name, Context(request))
        settle(verdict, attempt.reported_error)
    return verdict


def record(
    name: str,
    task_id: str,
    request: dict[str, Any],
    message: tuple[Any, str | None, str | None],
    state: str,
    error: Exception,
) -> Verdict:
    """Store the outcome of a task whose own process could not. The pool calls this in a task process.

    Args:
        name: name of the task, which may be unknown to this worker.
        task_id: id of the task.
        request: headers of the message, with `delivery_info`.
        message: body, content type and content encoding; the type is None if the body is decoded.
        state: FAILURE, which becomes RETRY if another attempt follows, or REVOKED.
        error: the reason.
    """
    app = current_app._get_current_object()
    task = app.tasks.get(name) or _UnknownTask(app, name)
    attempt = Attempt.of(app, task_id, request["delivery_info"])
    attempt.age_seconds = request["delivery_info"].get("age_seconds")
    with _working_on(attempt), app.tracing.attempt(name, valid(request)) as settle:
        with contextlib.suppress(Exception):  # An unreadable body names no chord or errbacks.
            _load(app, request, *message)
        # Invalid headers may be the reason of the failure; they must not prevent that it is stored.
        context = Context(valid(request), args=request.get("args") or (), kwargs=request.get("kwargs") or {})
        context.id = task_id
        if attempt.began < attempt.hold_until:  # Otherwise another attempt may be in progress.
            _record(attempt, task, context, state, error)
        # What ran was the task, in another process.
        verdict = _final_verdict(attempt)._replace(runtime_seconds=request["delivery_info"].get("ran_for_seconds", 0))
        _log(attempt, verdict, name, context)
        settle(verdict, attempt.reported_error)
    return verdict


def prepare_process(app: Any) -> None:
    """Prepare the tasks of a task process for `deliver`."""
    for name, task in app.tasks.items():
        kind = type(task)
        if not issubclass(kind, _TrackedTask):
            task.__class__ = type(kind.__name__, (_TrackedTask, kind), {"__module__": kind.__module__})
        task.__trace__ = build_tracer(name, task, app.loader, app=app, Info=Outcome)
    warnings.filterwarnings("ignore", "Exception raised outside body", RuntimeWarning)  # It is logged here.
    logging.raiseExceptions = False  # A task that closes standard error must not fail because of it.
    _ignore_soft_limit()


@signals.worker_process_init.connect(weak=False)
def _on_process_init(**rest: Any) -> None:
    app = current_app._get_current_object()
    # A worker of another service may use a client of this one, which has a copy of this library.
    if getattr(app, "library", None) == __package__:
        prepare_process(app)


# One attempt


@contextlib.contextmanager
def _working_on(attempt: Attempt) -> Iterator[None]:
    global current
    current = attempt
    before = request_id.set(None)  # A task may set it, for itself only.
    try:
        yield
    finally:
        request_id.reset(before)
        current = None
        _ignore_soft_limit()


def _run(attempt: Attempt, task: Any, request: dict[str, Any], message: tuple[Any, Any, Any]) -> None:
    """Run the task with Celery's tracer; afterwards there is a verdict."""
    try:
        args, kwargs = _load(task.app, request, *message)
        attempt.text = task.__trace__(attempt.task_id, args, kwargs, request).retstr or ""
    except BaseException as error:
        if _common.terminate_handler_fired():
            raise  # The main process is terminating this one.
        _conclude(attempt, task, Context(request), error)
    if attempt.verdict is None:
        attempt.verdict = Verdict(Action.DELETE, "succeeded")


def _record(attempt: Attempt, task: Any, context: Context, state: str, error: Exception) -> None:
    """Store FAILURE or REVOKED."""
    try:
        if isinstance(error, errors.DeliveredTooOftenError) and _has_ended(task, context):
            attempt.verdict = Verdict(Action.DEAD_LETTER, "dead_lettered", 0, reason_of(error, attempt.number))
            attempt.error, attempt.level = error, logging.ERROR
        elif state == states.REVOKED:
            attempt.verdict = Verdict(Action.DELETE, "revoked")
            attempt.end()
            store = _stores_errors(task, context)
            task.backend.mark_as_revoked(attempt.task_id, str(error), request=context, store_result=store)
        else:
            raise error
    except (Exception, Unavailable) as raised:  # noqa: BLE001
        attempt.error = raised
        _conclude(attempt, task, context, raised)


def _has_ended(task: Any, context: Context) -> bool:
    """Return whether a final state is stored; then neither the state nor errbacks are repeated."""
    try:
        return _stores_errors(task, context) and task.backend.get_state(context.id) in states.READY_STATES
    except Exception as error:  # noqa: BLE001 - storing it twice is better than not at all
        logger.warning("state of task %s cannot be read: %s", context.id, describe(error))
        return False


def _conclude(attempt: Attempt, task: Any, context: Context, error: BaseException) -> None:
    """End an attempt with an error that Celery's tracer did not handle."""
    try:
        Outcome(states.FAILURE, error).handle_error_state(task, context)
    except (Exception, Unavailable) as also:
        logger.error("task outcome could not be stored: %s", describe(also), exc_info=also)


def _load(
    app: Any, request: dict[str, Any], body: Any, content_type: str | None, content_encoding: str | None
) -> tuple[Any, Any]:
    """Decode the body of a message into the request; return the task's arguments."""
    if content_type:
        accept = prepare_accept_content(app.conf.accept_content)
        body = loads(body, content_type, content_encoding or "utf-8", accept=accept)
    args, kwargs, embedded = body
    request.update({"args": args, "kwargs": kwargs, "is_eager": False}, **embedded or {})
    request.update(completed(request))
    return args, kwargs


def _final_verdict(attempt: Attempt) -> Verdict:
    if attempt.verdict is None:
        attempt.verdict, attempt.level = Verdict(Action.RELEASE, "interrupted"), logging.WARNING
    text = describe(attempt.error)[:MAX_REASON_CHARACTERS] if attempt.error else attempt.text
    return attempt.verdict._replace(runtime_seconds=attempt.runtime_seconds, age_seconds=attempt.age_seconds, text=text)


def age_seconds(info: Mapping[str, Any], began: float) -> float | None:
    """Return how long a message had been due when an attempt began; None if that is not known.

    Args:
        info: the `delivery_info` of the request.
        began: Unix time.
    """
    due_at = info.get("due_at")
    return None if due_at is None else max(0.0, began - due_at)  # Clocks differ.


def _log(attempt: Attempt, verdict: Verdict, name: str, request: Any) -> None:
    """Write the log line of the attempt, after everything else."""
    level, suffix = attempt.level, ""
    if attempt.handed_over:
        level = max(level, logging.WARNING)
        suffix = "; result backend unavailable, result handed over to celery_aws.store_outcome"
    log_outcome(logger, level, task_fields(name, request), verdict, suffix, attempt.reported_error)


class _TrackedTask:
    """Mixin for every task of a task process; it takes precedence over the task's own class."""

    name: str
    request: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; if this is the attempt, record when its code starts and returns.

        Raises:
            ResultNotStorableError: the return value cannot be stored.
        """
        attempt, running = current, self.request
        if attempt is None or attempt.phase is not Phase.WAITING or running.id != attempt.task_id:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        process = os.getpid()
        if self.name == "celery.chord_unlock":  # Celery's code, which uses the result backend and the broker.
            attempt.end()
        else:
            attempt.enter(Phase.RUNNING)
            if SIG_SOFT_TIMEOUT is not None:
                signal.signal(SIG_SOFT_TIMEOUT, soft_timeout_sighandler)
        try:
            result = super().__call__(*args, **kwargs)  # type: ignore[misc]
        finally:
            if os.getpid() != process:  # The task forked, and this process would continue as a second worker.
                os._exit(0)
        attempt.has_returned = True
        attempt.end()
        _check_storable(self, running, result)
        return result

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Retry the task; see `celery.Task.retry`.

        Raises:
            RetryRefusedError: the options cannot be honoured, such as a countdown that is too long.
        """
        try:
            return super().retry(*args, **kwargs)  # type: ignore[misc]
        except Retry:
            if current is not None:
                current.retry_sent = True
            raise
        except Reject as rejected:
            reason = getattr(rejected, "reason", None)
            if isinstance(reason, errors.RefusedError):
                raise errors.RetryRefusedError(f"self.retry(): {reason}") from reason
            if isinstance(reason, Exception):
                raise reason from None  # The broker is unavailable, so the attempt fails and is retried.
            raise


def _check_storable(task: Any, request: Context, result: Any) -> None:
    """Refuse a return value that cannot be stored, before callbacks and chains are sent.

    Raises:
        ResultNotStorableError: the return value cannot be stored.
    """
    stored = not get_actual_ignore_result(task, request)
    if stored or request.callbacks or request.chain or request.chord:
        task.backend.check_storable(result if stored else None, result)


def _stores_errors(task: Any, request: Context) -> bool:
    return bool(not get_actual_ignore_result(task, request) or task.store_errors_even_if_ignored)


# The outcome of an attempt


class Outcome(TraceInfo):
    """Stores the outcome that Celery's tracer determined, unless it is success."""

    def handle_error_state(self, task: Any, req: Context, eager: bool = False, call_errbacks: bool = True) -> Any:
        """Store RETRY if there will be another attempt, and FAILURE otherwise."""
        attempt = working_on()
        if attempt.verdict is not None or attempt.phase > Phase.ENDED:
            logger.error("error after the attempt had ended: %s", describe(self.retval), exc_info=self.retval)
            return ExceptionInfo()
        if self.state == states.RETRY and attempt.retry_sent:  # `raise Retry()` alone sends nothing, so it failed.
            attempt.verdict = Verdict(Action.DELETE, "retry_requested")
            attempt.end()
            attempt.settle()
            return self.handle_retry(task, req, store_errors=_stores_errors(task, req))
        return self._fail(attempt, task, req, call_errbacks=call_errbacks or self.state == states.RETRY)

    def handle_reject(self, task: Any, req: Context, **rest: Any) -> None:
        """Treat `Reject(requeue=True)` as a failure, and `Reject(requeue=False)` as a permanent one."""
        rejected = self.retval
        self.retval = rejected.reason if isinstance(rejected.reason, Exception) else rejected
        if not rejected.requeue:
            self.retval = errors.TaskRejectedError(describe(self.retval))
        self._fail(working_on(), task, req)

    def handle_ignore(self, task: Any, req: Context, **rest: Any) -> None:
        """Store nothing: a task that raises `Ignore` manages its own state."""
        attempt = working_on()
        attempt.verdict = Verdict(Action.DELETE, "ignored")
        attempt.end()
        attempt.settle()

    def _fail(self, attempt: Attempt, task: Any, req: Context, *, call_errbacks: bool = True) -> ExceptionInfo:
        """Decide whether a failure is final, and store it."""
        if not attempt.has_returned:
            self.retval = as_arguments_error(task, req, self.retval)
        attempt.error = error = self.retval
        expected = isinstance(error, getattr(task, "throws", None) or ())
        attempt.level = logging.INFO if expected else logging.ERROR
        attempt.end()
        store = _stores_errors(task, req)
        if isinstance(error, Unavailable):
            # Neither the result backend nor the broker can be reached, so nothing can be stored or sent.
            attempt.verdict = Verdict(Action.RELEASE, "interrupted")
            return ExceptionInfo()
        if not attempt.has_returned and not attempt.is_last and not is_permanent(task, error):
            first_seconds = getattr(task, "retry_backoff_seconds", None)
            seconds = backoff_seconds(attempt.queue, attempt.number, first_seconds)
            attempt.verdict = Verdict(Action.RELEASE, "retrying", seconds)
            attempt.level = min(attempt.level, logging.WARNING)
            self.state, self.retval = states.RETRY, Redelivered(describe(error), storable(error))
            return self.handle_retry(task, req, store_errors=store)
        outcome = "rejected" if isinstance(error, errors.TaskRejectedError) else "dead_lettered"
        attempt.verdict = Verdict(Action.DEAD_LETTER, outcome, 0, reason_of(error, attempt.number))
        self.state, self.retval = states.FAILURE, storable(error)
        try:
            return self.handle_failure(task, req, store_errors=store, call_errbacks=call_errbacks)
        except Unavailable:
            if not attempt.is_last and attempt.phase is not Phase.FAILED:  # Nothing final was stored or sent.
                attempt.verdict = Verdict(Action.RELEASE, "interrupted")
            raise

    def _log_error(self, *args: Any) -> None:
        """Do nothing: `deliver` logs the outcome."""


PERMANENT = (
    errors.ArgumentsError,
    errors.DeliveredTooOftenError,
    errors.InvalidMessageError,
    errors.RetryRefusedError,
    errors.TaskRejectedError,
)
"""Errors of this library that are not retried."""


def is_permanent(task: Any, error: BaseException) -> bool:
    """Return whether an error is final for a task, whatever its receive count."""
    return isinstance(error, (*PERMANENT, *getattr(task, "permanent_errors", ())))


class _UnknownTask(celery.Task[Any, Any]):
    """Placeholder for a task that is unknown to this worker."""

    abstract = True

    def __init__(self, app: Any, name: str) -> None:
        self.name = name
        self.bind(app)


def _ignore_soft_limit() -> None:
    """Ignore the signal of the soft limit, which applies to the task's code only."""
    if SIG_SOFT_TIMEOUT is not None:
        signal.signal(SIG_SOFT_TIMEOUT, signal.SIG_IGN)
