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
import signal
import socket
import time
import traceback as tracebacks
import warnings
from collections.abc import Iterator
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
from celery.utils.serialization import create_exception_cls
from kombu.serialization import loads, prepare_accept_content

from . import errors
from .backoff import backoff_seconds
from .contract import Queue
from .logs import task_fields
from .pool import Phase, is_hurried, set_phase

logger = logging.getLogger(__name__)

# Their published types lack what is used here.
current_app: Any = _current_app
_common: Any = common
get_actual_ignore_result: Any = task_module.get_actual_ignore_result  # type: ignore[attr-defined]

MAX_REASON_CHARACTERS = 4_000
"""Of an exception or a traceback that go with a message into the dead-letter queue; of a traceback its end."""

MAX_ERROR_CHARACTERS = 20_000
"""Of an exception or a traceback that is stored as a result or logged."""

STORE_FOR_SECONDS = 600
"""The longest that a process waits for a result backend that is unavailable, if its message stays invisible as long."""

STORE_RETRY_FOR_SECONDS = 5
"""The longest that it waits to store RETRY, which is not final."""

HURRIED_FOR_SECONDS = 2
"""The longest that it waits when its worker is stopping."""

RESERVE_SECONDS = 20
"""What is left of the time in which a message is invisible, for handing its result over and deleting it."""


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
    reason: dict[str, str] = {}  # noqa: RUF012 - never changed
    """Why its message is dead-lettered, as it is to be noted with it."""
    runtime_seconds: float = 0
    text: str = ""
    """What the task returned, or what it failed with, cut to some characters."""


class Redelivered(Retry):
    """An attempt failed, and another follows; by `Retry` Celery tells a result that is to come from one that failed."""


class ResultsUnavailable(BaseException):
    """The result backend stayed unavailable for as long as this attempt can wait for it.

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
    """Until when storing its outcome is tried; before its end, not at all beyond the first time."""
    unavailable: bool = False
    """Whether the result backend was given up."""
    is_asking: bool = False
    """Whether a request to it is under way."""
    hands_over: bool = True
    """Whether its outcome may be stored by a message of its own."""
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
        """Return the attempt that a message's `delivery_info` tells of."""
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
        if self.store_until:  # What a task stores itself, of its own or others, is not its outcome.
            final = self.verdict is not None and self.verdict.action is Action.DEAD_LETTER
            self.enter(Phase.FAILED if final else Phase.SETTLED)

    def end(self) -> None:
        """Begin to store its outcome: no time limit disturbs that, and a result backend is waited for."""
        now = time.monotonic()
        _ignore_soft_limit()
        self.enter(Phase.ENDED)
        if not self.store_until:
            self.runtime_seconds = now - self.began
            self.store_until = max(now, min(self.hold_until - RESERVE_SECONDS, now + STORE_FOR_SECONDS))

    def may_wait(self, seconds: float) -> bool:
        """Wait for a result backend that is unavailable; return at once, and whether to go on, if that is no use."""
        until = self.store_until
        if is_hurried():
            until = min(until, time.monotonic() + HURRIED_FOR_SECONDS)
        if self.unavailable or time.monotonic() + seconds > until:
            return False
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not is_hurried():
            time.sleep(min(left, 0.5))
        return True


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
        if attempt.began > request["delivery_info"]["start_before"]:
            # It waited in this worker, behind others, so long that it could outlast its visibility timeout.
            attempt.verdict = Verdict(Action.RELEASE, "interrupted")
            attempt.level = logging.WARNING
        else:
            _run(attempt, task, request, (body, content_type, content_encoding))
        _log(attempt, task.name, Context(request))
    return _told(attempt)


def record(
    name: str,
    task_id: str,
    request: dict[str, Any],
    body: Any,
    content_type: str | None,
    content_encoding: str | None,
    state: str,
    error: Exception,
) -> Verdict:
    """Store what a task ended with outside its own process, which died; the pool calls this in another.

    Args:
        name: of the task; it may be unknown here.
        task_id: its id.
        request: headers of its message, with `delivery_info`.
        body: of its message.
        content_type: of the body; none if it is decoded already.
        content_encoding: of the body.
        state: FAILURE, which becomes RETRY if another attempt follows, or REVOKED.
        error: why.
    """
    app = current_app._get_current_object()
    task = app.tasks.get(name) or _UnknownTask(app, name)
    attempt = Attempt.of(app, task_id, request["delivery_info"])
    with _working_on(attempt):
        attempt.enter(Phase.RUNNING)
        with contextlib.suppress(Exception):  # A body that cannot be read tells nothing of what waits for the task.
            _load(app, request, body, content_type, content_encoding)
        context = Context(request, args=request.get("args") or (), kwargs=request.get("kwargs") or {})
        context.id = task_id
        try:
            if state == states.REVOKED:
                _revoke(attempt, task, context, error)
            else:
                raise error
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is stored
            attempt.error = attempt.error or raised
            _conclude(attempt, task, context, raised)
        _log(attempt, name, context)
    return _told(attempt)


def prepare_process(app: Any) -> None:
    """Let every task of this process be run by `deliver`."""
    for name, task in app.tasks.items():
        kind = type(task)
        if not issubclass(kind, _Watched):
            task.__class__ = type(kind.__name__, (_Watched, kind), {"__module__": kind.__module__})
        task.__trace__ = build_tracer(name, task, app.loader, app=app, Info=Outcome)
    warnings.filterwarnings("ignore", "Exception raised outside body", RuntimeWarning)  # It is logged here.
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
    app = task.app
    try:
        args, kwargs = _load(app, request, *message)
        attempt.text = task.__trace__(attempt.task_id, args, kwargs, request).retstr or ""
    except BaseException as error:
        if _common.terminate_handler_fired():
            raise  # The main process ends this one.
        _conclude(attempt, task, Context(request), error)
    if attempt.verdict is None:
        attempt.verdict = Verdict(Action.DELETE, "succeeded")


def _conclude(attempt: Attempt, task: Any, context: Context, error: BaseException) -> None:
    """End an attempt with what Celery's tracer did not take for the task's own error."""
    if attempt.verdict is not None or attempt.phase is Phase.SETTLED:
        logger.error("Task hook failed after the attempt had ended: %s", describe(error), exc_info=error)
        return
    try:
        Outcome(states.FAILURE, error).handle_error_state(task, context)
    except (Exception, ResultsUnavailable) as also:  # A hook of the task's, or nothing can be reached.
        logger.error("Outcome of the task could not be stored: %s", describe(also), exc_info=also)


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


def _told(attempt: Attempt) -> Verdict:
    verdict = attempt.verdict or Verdict(Action.RELEASE, "interrupted")
    text = describe(attempt.error)[:MAX_REASON_CHARACTERS] if attempt.error else attempt.text
    return verdict._replace(runtime_seconds=attempt.runtime_seconds, text=text)


class _Watched:
    """What every task is in a task process, before what it is otherwise."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; where this is the attempt, note when its code begins and when it has returned.

        Raises:
            ResultNotStorableError: what it returned cannot be stored.
        """
        attempt, task = current, self
        running: Any = getattr(task, "request", None)
        if attempt is None or attempt.phase is not Phase.WAITING or running.id != attempt.task_id:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        attempt.enter(Phase.RUNNING)
        if SIG_SOFT_TIMEOUT is not None:
            signal.signal(SIG_SOFT_TIMEOUT, soft_timeout_sighandler)
        result = super().__call__(*args, **kwargs)  # type: ignore[misc]
        attempt.has_returned = True
        attempt.end()
        _check_storable(task, running, result)
        return result

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Send the task anew; see `celery.Task.retry`.

        Raises:
            RetryRefusedError: the options cannot be honoured, such as a countdown that is too long.
        """
        try:
            return super().retry(*args, **kwargs)  # type: ignore[misc]
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


# What an attempt ends with


class Outcome(TraceInfo):
    """Stores what Celery's tracer found an attempt to end with; everything but success passes here."""

    def handle_error_state(self, task: Any, req: Context, eager: bool = False, call_errbacks: bool = True) -> Any:
        """Store RETRY or FAILURE; which, depends on whether there will be another attempt."""
        attempt = working_on()
        store = not get_actual_ignore_result(task, req) or task.store_errors_even_if_ignored
        if self.state == states.RETRY:
            attempt.verdict = Verdict(Action.DELETE, "retry_requested")
            attempt.end()
            return self.handle_retry(task, req, store_errors=store)
        if attempt.verdict is not None or attempt.phase is Phase.SETTLED:
            _conclude(attempt, task, req, self.retval)
            return ExceptionInfo()
        return self._fail(attempt, task, req, store=store, call_errbacks=call_errbacks)

    def handle_reject(self, task: Any, req: Context, **rest: Any) -> None:
        """Take `Reject(requeue=True)` for a failure, and `Reject(requeue=False)` for one that is final."""
        attempt, rejected = working_on(), self.retval
        self.retval = rejected.reason if isinstance(rejected.reason, Exception) else rejected
        if not rejected.requeue:
            self.retval = errors.TaskRejectedError(describe(self.retval))
        store = not get_actual_ignore_result(task, req) or task.store_errors_even_if_ignored
        self._fail(attempt, task, req, store=store)

    def handle_ignore(self, task: Any, req: Context, **rest: Any) -> None:
        """Store nothing: the task has seen to its own state, or wants none."""
        attempt = working_on()
        attempt.verdict = Verdict(Action.DELETE, "ignored")
        attempt.end()

    def _fail(
        self, attempt: Attempt, task: Any, req: Context, *, store: bool, call_errbacks: bool = True
    ) -> ExceptionInfo:
        """Decide whether a failure is final, and store it."""
        attempt.error = error = self.retval
        expected = isinstance(error, getattr(task, "throws", None) or ())
        attempt.level = logging.INFO if expected else logging.ERROR
        attempt.end()
        if isinstance(error, ResultsUnavailable):
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
        return self.handle_failure(task, req, store_errors=store, call_errbacks=call_errbacks)

    def _log_error(self, *args: Any) -> None:
        """Say nothing; `deliver` does, when all is done."""


def is_permanent(task: Any, error: BaseException) -> bool:
    """Return whether another attempt is useless after an error."""
    final = (errors.TaskRejectedError, errors.RetryRefusedError, errors.DeliveredTooOftenError)
    return isinstance(error, (*final, *getattr(task, "permanent_errors", ())))


def _revoke(attempt: Attempt, task: Any, context: Context, error: Exception) -> None:
    attempt.verdict = Verdict(Action.DELETE, "revoked")
    attempt.end()
    store = not get_actual_ignore_result(task, context)
    task.backend.mark_as_revoked(attempt.task_id, str(error), request=context, store_result=store)


class _UnknownTask(celery.Task[Any, Any]):
    """Stands in for a task that this worker does not know."""

    abstract = True

    def __init__(self, app: Any, name: str) -> None:
        self.name = name
        self.bind(app)


# Errors that fit: into a log line, a result and a message


def describe(error: BaseException) -> str:
    """Return the type and text of an error, whatever its `repr` does, within `MAX_ERROR_CHARACTERS`."""
    try:
        text = repr(error)
    except Exception as broken:  # noqa: BLE001
        text = f"{type(error).__name__}(<its repr raised {type(broken).__name__}>)"
    return text if len(text) <= MAX_ERROR_CHARACTERS else f"{text[:MAX_ERROR_CHARACTERS]}... [cut]"


def storable(error: BaseException) -> Exception:
    """Return an error that any result backend can store: itself, or one of its name with its text."""
    if not isinstance(error, Exception):
        return errors.TaskAbortedError(describe(error))
    try:
        if len(str(error.args)) <= MAX_ERROR_CHARACTERS:
            return error
    except Exception:  # noqa: BLE001, S110 - an argument that cannot be shown
        pass
    kind: Any = type(error)
    stand_in = create_exception_cls(kind.__name__, kind.__module__)
    made: Exception = stand_in(describe(error)).with_traceback(error.__traceback__)
    return made


def reason_of(error: BaseException, attempt: int) -> dict[str, str]:
    """Return why a message is dead-lettered, as the on-call engineer wants to know it."""
    lines = tracebacks.format_exception(type(error), error, error.__traceback__) if error.__traceback__ else []
    told = {
        "FailureException": _printable(describe(error))[:MAX_REASON_CHARACTERS],
        "FailureTraceback": _printable("".join(lines))[-MAX_REASON_CHARACTERS:],
        "FailureHost": _printable(socket.gethostname()),
        "FailureAttempt": str(attempt),
    }
    return {name: value for name, value in told.items() if value}


def _printable(text: str) -> str:
    """Return a text without what brokers do not take in an attribute of a message."""
    return "".join(c for c in text if c in "\t\n\r" or c.isprintable() or c == " ")


def _ignore_soft_limit() -> None:
    """Let a soft limit that comes too late pass: it is for the task's own code."""
    if SIG_SOFT_TIMEOUT is not None:
        signal.signal(SIG_SOFT_TIMEOUT, signal.SIG_IGN)


# The log line


def _log(attempt: Attempt, name: str, request: Any) -> None:
    """Say what the attempt ended with, when all of it is done."""
    verdict = attempt.verdict or Verdict(Action.RELEASE, "interrupted")
    seconds = attempt.runtime_seconds
    fields: dict[str, Any] = {
        **task_fields(name, request),
        "outcome": verdict.outcome,
        "duration_seconds": round(seconds, 3),
    }
    if verdict.outcome == "retrying":
        fields["redelivery_in_seconds"] = verdict.redelivery_in_seconds
    said = _SAID[verdict.outcome].format(seconds=seconds, redelivery=verdict.redelivery_in_seconds)
    level = attempt.level
    if attempt.handed_over:
        said += "; the result backend is unavailable, so the result will be stored by a message of its own"
        level = max(level, logging.WARNING)
    error = attempt.error
    logger.log(level, said, exc_info=error if error and level > logging.INFO else None, extra=fields)


_SAID = {
    "succeeded": "succeeded in {seconds:.3f} s",
    "retrying": "failed after {seconds:.3f} s; redelivery in about {redelivery:g} s",
    "dead_lettered": "failed after {seconds:.3f} s; dead-lettered",
    "rejected": "rejected after {seconds:.3f} s; dead-lettered",
    "retry_requested": "retry requested after {seconds:.3f} s",
    "ignored": "ignored after {seconds:.3f} s",
    "revoked": "revoked",
    "interrupted": "interrupted after {seconds:.3f} s; redelivery at once",
}
