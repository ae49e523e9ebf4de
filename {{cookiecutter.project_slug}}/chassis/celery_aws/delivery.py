"""One attempt at a task, in the process that runs it: what the attempt ends with is decided, stored and logged here.

The worker's main process hands over a message and gets a `Verdict` back: delete the message, release it for another
attempt, or move it to the dead-letter queue. It makes no call to a result backend itself.

A state that is final is stored once. An attempt that fails and is followed by another stores RETRY, which Celery does
not take for an end, so that neither errbacks nor chords hear of it. Once the task's own code has returned, it is not
run again: storing its result is tried for as long as the message is invisible to other workers, and then handed over to
a message of its own; see storing.py.
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
from .headers import valid
from .logs import log_outcome, task_fields
from .pool import Phase, is_shutting_down, set_phase

logger = logging.getLogger(__name__)

# Their published types lack what is used here.
current_app: Any = _current_app
_common: Any = common
get_actual_ignore_result: Any = task_module.get_actual_ignore_result  # type: ignore[attr-defined]

STORE_FOR_SECONDS = 600
"""The longest that a process waits for a result backend that is unavailable, if its message stays invisible as long."""

STORE_RETRY_FOR_SECONDS = 5
"""The longest that it waits to store RETRY, which is not final."""

REQUEST_SECONDS = 15
"""The longest that a request to the result backend may take; its client gives up only if nothing at all comes."""

RESERVE_SECONDS = HAND_OVER_SECONDS
"""What is left of the time in which a message is invisible, for handing its outcome over and deleting it."""


class Action(Enum):
    """What the main process is to do with a message."""

    DELETE = "delete"
    RELEASE = "release"
    DEAD_LETTER = "dead-letter"


class Verdict(NamedTuple):
    """What an attempt ended with."""

    action: Action
    outcome: str
    """The value of `outcome` in its log line."""
    redelivery_in_seconds: float = 0
    """After how long a message that is released is delivered again: 0 to the queue's visibility timeout."""
    reason: Mapping[str, str] | None = None
    """Why its message is dead-lettered, as it is to be noted with it."""
    runtime_seconds: float = 0
    """What the task's own code took."""
    text: str = ""
    """What the task returned, or what it failed with, cut to `MAX_REASON_CHARACTERS`."""


class Redelivered(Retry):
    """Stored as RETRY: the attempt failed, and the message will be redelivered."""


class Unavailable(BaseException):
    """The result backend, or the broker, stayed unavailable for as long as this attempt can wait for it.

    No `Exception`, because Celery takes any of those, while it joins a chord, for the chord's failure.
    """


@dataclass
class Attempt:
    """The attempt that this process works on."""

    task_id: str
    queue: Queue
    queue_name: str
    """Name of the queue in Celery."""
    number: int
    """Receive count of its message."""
    is_last: bool
    hold_until: float
    """When its message may become visible to other workers, in seconds of the monotonic clock."""
    mark: int
    phase: Phase = Phase.WAITING
    has_returned: bool = False
    """Whether the task's own code has returned, and not raised."""
    store_until: float = 0
    """Monotonic time until which storing its outcome is retried; 0 while the task's own code runs."""
    unavailable: bool = False
    """Whether the result backend was given up."""
    request_in_progress: bool = False
    """Whether a request to it is under way."""
    hands_over: bool = True
    """Whether its outcome may be stored by a message of its own."""
    retry_sent: bool = False
    """Whether the task has sent its own retry."""
    handed_over: bool = False
    """Whether its outcome will be stored by a message of its own."""
    verdict: Verdict | None = None
    error: BaseException | None = None
    """What it failed with, to be logged."""
    text: str = ""
    """What the task returned, as Celery shows it in events."""
    level: int = logging.INFO
    began: float = field(default_factory=time.monotonic)
    runtime_seconds: float = 0
    """What the task's own code took, once it has ended."""

    @classmethod
    def of(cls, app: Any, task_id: str, info: dict[str, Any]) -> Attempt:
        """Return the attempt that a message's `delivery_info` tells of.

        Raises:
            KeyError: the contract has no such queue.
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
        """Note how far it is, for the main process as well."""
        self.phase = phase
        set_phase(self.mark, phase)

    def settle(self) -> None:
        """Note that its outcome is stored, or will be."""
        if not self.store_until:  # What a task stores itself, of its own or others, is not its outcome.
            return
        if self.verdict is None:
            self.enter(Phase.SUCCEEDED)
        elif self.verdict.action is Action.DEAD_LETTER:
            self.enter(Phase.FAILED)
        else:
            self.enter(Phase[self.verdict.outcome.upper()])

    def end(self) -> None:
        """Mark the task's code as ended: no limit holds now, and requests to the result backend are retried."""
        now = time.monotonic()
        _ignore_soft_limit()
        self.enter(Phase.ENDED)
        if not self.store_until:
            self.runtime_seconds = now - self.began
            self.store_until = max(now, min(self.hold_until - RESERVE_SECONDS, now + STORE_FOR_SECONDS))

    def may_wait(self, seconds: float) -> bool:
        """Sleep before the next request to the result backend; return False at once if there is no time for both."""
        end = time.monotonic() + seconds
        if self.unavailable or is_shutting_down() or end > self.store_until:
            return False
        while (left := end - time.monotonic()) > 0 and not is_shutting_down():
            time.sleep(min(left, 0.5))
        return not is_shutting_down()


current: Attempt | None = None
"""The attempt that this process works on, if it is a task process at work."""


def working_on() -> Attempt:
    """Return the attempt that this process works on.

    Raises:
        RuntimeError: there is none.
    """
    if current is None:
        raise RuntimeError("no attempt is under way in this process")
    return current


# The entry points of a task process


def deliver(
    name: str, task_id: str, request: dict[str, Any], body: Any, content_type: str | None, content_encoding: str | None
) -> Verdict:
    """Run a task once; the pool calls this in a task process, as it calls Celery's `trace_task_ret` otherwise."""
    app = current_app._get_current_object()
    task = app.tasks[name]
    attempt = Attempt.of(app, task_id, request["delivery_info"])
    with _working_on(attempt):
        # It may have waited in this worker, behind others, so long that it could outlast its visibility timeout.
        if attempt.began <= request["delivery_info"]["start_before"]:
            _run(attempt, task, request, (body, content_type, content_encoding))
        verdict = _final_verdict(attempt)
        _log(attempt, verdict, task.name, Context(request))
    return verdict


def record(
    name: str,
    task_id: str,
    request: dict[str, Any],
    message: tuple[Any, str | None, str | None],
    state: str,
    error: Exception,
) -> Verdict:
    """Store what a task ended with outside its own process, which died; the pool calls this in another.

    Args:
        name: of the task; it may be unknown here.
        task_id: its id.
        request: headers of its message, with `delivery_info`.
        message: its body, content type and content encoding; no type if the body is decoded already.
        state: FAILURE, which becomes RETRY if another attempt follows, or REVOKED.
        error: why.
    """
    app = current_app._get_current_object()
    task = app.tasks.get(name) or _UnknownTask(app, name)
    attempt = Attempt.of(app, task_id, request["delivery_info"])
    with _working_on(attempt):
        with contextlib.suppress(Exception):  # A body that cannot be read tells nothing of what waits for the task.
            _load(app, request, *message)
        # It may have failed for what is in it, and that is not to keep its failure from being stored.
        context = Context(valid(request), args=request.get("args") or (), kwargs=request.get("kwargs") or {})
        context.id = task_id
        if attempt.began < attempt.hold_until:  # Else another attempt may be under way by now.
            _record(attempt, task, context, state, error)
        verdict = _final_verdict(attempt)
        _log(attempt, verdict, name, context)
    return verdict


def prepare_process(app: Any) -> None:
    """Let every task of this process be run by `deliver`."""
    for name, task in app.tasks.items():
        kind = type(task)
        if not issubclass(kind, _TrackedTask):
            task.__class__ = type(kind.__name__, (_TrackedTask, kind), {"__module__": kind.__module__})
        task.__trace__ = build_tracer(name, task, app.loader, app=app, Info=Outcome)
    warnings.filterwarnings("ignore", "Exception raised outside body", RuntimeWarning)  # It is logged here.
    logging.raiseExceptions = False  # A task that closes standard error is not to fail for it.
    _ignore_soft_limit()


@signals.worker_process_init.connect(weak=False)
def _on_process_init(**rest: Any) -> None:
    app = current_app._get_current_object()
    if hasattr(app, "queue_served"):
        prepare_process(app)


# One attempt


@contextlib.contextmanager
def _working_on(attempt: Attempt) -> Iterator[None]:
    global current
    current = attempt
    try:
        yield
    finally:
        current = None
        _ignore_soft_limit()


def _run(attempt: Attempt, task: Any, request: dict[str, Any], message: tuple[Any, Any, Any]) -> None:
    """Run the task, by Celery's own tracer, and see that there is a verdict."""
    try:
        args, kwargs = _load(task.app, request, *message)
        attempt.text = task.__trace__(attempt.task_id, args, kwargs, request).retstr or ""
    except BaseException as error:
        if _common.terminate_handler_fired():
            raise  # The main process ends this one.
        _conclude(attempt, task, Context(request), error)
    if attempt.verdict is None:
        attempt.verdict = Verdict(Action.DELETE, "succeeded")


def _record(attempt: Attempt, task: Any, context: Context, state: str, error: Exception) -> None:
    """Store that a task failed, or was revoked."""
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
    """Return whether a task has a final state already, which is not to be stored again, nor told anybody."""
    try:
        return _stores_errors(task, context) and task.backend.get_state(context.id) in states.READY_STATES
    except Exception as error:  # noqa: BLE001 - told twice is better than not at all
        logger.warning("state of task %s cannot be read: %s", context.id, describe(error))
        return False


def _conclude(attempt: Attempt, task: Any, context: Context, error: BaseException) -> None:
    """End an attempt with what Celery's tracer did not take for the task's own error."""
    try:
        Outcome(states.FAILURE, error).handle_error_state(task, context)
    except (Exception, Unavailable) as also:
        logger.error("outcome of the task could not be stored: %s", describe(also), exc_info=also)


def _load(
    app: Any, request: dict[str, Any], body: Any, content_type: str | None, content_encoding: str | None
) -> tuple[Any, Any]:
    """Read the body of a message into the request; return the task's arguments."""
    if content_type:
        accept = prepare_accept_content(app.conf.accept_content)
        body = loads(body, content_type, content_encoding or "utf-8", accept=accept)
    args, kwargs, embedded = body
    request.update({"args": args, "kwargs": kwargs, "is_eager": False}, **embedded or {})
    return args, kwargs


def _final_verdict(attempt: Attempt) -> Verdict:
    if attempt.verdict is None:
        attempt.verdict, attempt.level = Verdict(Action.RELEASE, "interrupted"), logging.WARNING
    text = describe(attempt.error)[:MAX_REASON_CHARACTERS] if attempt.error else attempt.text
    return attempt.verdict._replace(runtime_seconds=attempt.runtime_seconds, text=text)


def _log(attempt: Attempt, verdict: Verdict, name: str, request: Any) -> None:
    """Write the log line of the attempt, when all of it is done."""
    level, suffix = attempt.level, ""
    if attempt.handed_over:
        level = max(level, logging.WARNING)
        suffix = "; result backend unavailable, result handed over to celery_aws.store_outcome"
    error = attempt.error if level > logging.INFO else None
    log_outcome(logger, level, task_fields(name, request), verdict, suffix, error)


class _TrackedTask:
    """What every task is in a task process, before what it is otherwise."""

    name: str
    request: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; where this is the attempt, note when its code begins and when it has returned.

        Raises:
            ResultNotStorableError: what it returned cannot be stored.
        """
        attempt, running = current, self.request
        if attempt is None or attempt.phase is not Phase.WAITING or running.id != attempt.task_id:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        process = os.getpid()
        if self.name == "celery.chord_unlock":  # No owner's code: it waits for the result backend and the broker.
            attempt.end()
        else:
            attempt.enter(Phase.RUNNING)
            if SIG_SOFT_TIMEOUT is not None:
                signal.signal(SIG_SOFT_TIMEOUT, soft_timeout_sighandler)
        try:
            result = super().__call__(*args, **kwargs)  # type: ignore[misc]
        finally:
            if os.getpid() != process:  # The task has forked, and this would go on as another worker.
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
                raise reason from None  # The broker is unavailable, so the attempt fails and is repeated.
            raise


def _check_storable(task: Any, request: Context, result: Any) -> None:
    """Refuse what the result backend cannot store, before anything that follows the task is sent.

    Raises:
        ResultNotStorableError: it cannot be stored.
    """
    stored = not get_actual_ignore_result(task, request)
    if stored or request.callbacks or request.chain or request.chord:
        task.backend.check_storable(result if stored else None, result)


def _stores_errors(task: Any, request: Context) -> bool:
    return bool(not get_actual_ignore_result(task, request) or task.store_errors_even_if_ignored)


# What an attempt ends with


class Outcome(TraceInfo):
    """Stores what Celery's tracer found an attempt to end with; everything but success passes here."""

    def handle_error_state(self, task: Any, req: Context, eager: bool = False, call_errbacks: bool = True) -> Any:
        """Store RETRY or FAILURE; which, depends on whether there will be another attempt."""
        attempt = working_on()
        if attempt.verdict is not None or attempt.phase > Phase.ENDED:
            logger.error("error after the attempt had ended: %s", describe(self.retval), exc_info=self.retval)
            return ExceptionInfo()
        if self.state == states.RETRY and attempt.retry_sent:  # Else `Retry` was raised by hand, and nothing was sent.
            attempt.verdict = Verdict(Action.DELETE, "retry_requested")
            attempt.end()
            attempt.settle()
            return self.handle_retry(task, req, store_errors=_stores_errors(task, req))
        return self._fail(attempt, task, req, call_errbacks=call_errbacks or self.state == states.RETRY)

    def handle_reject(self, task: Any, req: Context, **rest: Any) -> None:
        """Take `Reject(requeue=True)` for a failure, and `Reject(requeue=False)` for one that is final."""
        rejected = self.retval
        self.retval = rejected.reason if isinstance(rejected.reason, Exception) else rejected
        if not rejected.requeue:
            self.retval = errors.TaskRejectedError(describe(self.retval))
        self._fail(working_on(), task, req)

    def handle_ignore(self, task: Any, req: Context, **rest: Any) -> None:
        """Store nothing: the task has seen to its own state, or wants none."""
        attempt = working_on()
        attempt.verdict = Verdict(Action.DELETE, "ignored")
        attempt.end()
        attempt.settle()

    def _fail(self, attempt: Attempt, task: Any, req: Context, *, call_errbacks: bool = True) -> ExceptionInfo:
        """Decide whether a failure is final, and store it."""
        attempt.error = error = self.retval
        expected = isinstance(error, getattr(task, "throws", None) or ())
        attempt.level = logging.INFO if expected else logging.ERROR
        attempt.end()
        store = _stores_errors(task, req)
        if isinstance(error, Unavailable):
            # Neither the result backend nor the broker can be reached, so nothing can be said or done.
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
            if not attempt.is_last and attempt.phase is not Phase.FAILED:  # Nobody was told, so another may follow.
                attempt.verdict = Verdict(Action.RELEASE, "interrupted")
            raise

    def _log_error(self, *args: Any) -> None:
        """Say nothing; `deliver` does, when all is done."""


PERMANENT = (
    errors.DeliveredTooOftenError,
    errors.InvalidMessageError,
    errors.RetryRefusedError,
    errors.TaskRejectedError,
)
"""Errors of the service's own after which another attempt is useless."""


def is_permanent(task: Any, error: BaseException) -> bool:
    """Return whether another attempt is useless after an error."""
    return isinstance(error, (*PERMANENT, *getattr(task, "permanent_errors", ())))


class _UnknownTask(celery.Task[Any, Any]):
    """Stands in for a task that this worker does not know."""

    abstract = True

    def __init__(self, app: Any, name: str) -> None:
        self.name = name
        self.bind(app)


def _ignore_soft_limit() -> None:
    """Let a soft limit that comes too late pass: it is for the task's own code."""
    if SIG_SOFT_TIMEOUT is not None:
        signal.signal(SIG_SOFT_TIMEOUT, signal.SIG_IGN)
