"""Storing the outcome of a task, also while the result backend is unavailable.

A task process retries each request to the result backend until it succeeds, for as long as the
task's message is invisible to other workers. If the outage lasts longer, the outcome is sent to the
task's queue as a message of the task `celery_aws.store_outcome`, which any worker runs, and the
task's own message is deleted. So an outage neither runs a task twice nor leaves a chord waiting. A
result is lost only if it is too large for a message; the state is then FAILURE with `ResultLostError`.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from celery import states
from celery.app.task import Context
from celery.backends.base import DisabledBackend
from celery.exceptions import ChordError
from celery.result import result_from_tuple
from celery.utils.serialization import UnpickleableExceptionWrapper, create_exception_cls
from kombu.exceptions import EncodeError
from kombu.utils.json import dumps

from . import delivery, errors
from .delivery import Unavailable
from .failures import cut, describe
from .pool import is_shutting_down

logger = logging.getLogger(__name__)

STORE_OUTCOME = "celery_aws.store_outcome"
"""Name of the task that stores the outcome of another task."""

ATTEMPT_SECONDS = 60
"""How long that task waits for the result backend in each attempt."""

RESEND_AFTER_SECONDS = 300
"""Delay of the new message after its last attempt, or the longest countdown that the queue allows."""

STOPPING_REQUEST_SECONDS = 5
"""Time limit of a request to the result backend while the worker is stopping."""

FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 5


class _RequestTimeout(BaseException):
    """A request exceeded its time limit. Not an `Exception`: the backends' clients would retry it themselves."""


class ResilientBackend:
    """Mixin for Celery's result backends that retries requests during an outage."""

    max_result_bytes: int | None = None
    """Maximum size of an encoded result; None if the backend has no limit."""

    app: Any
    encode: Callable[[Any], Any]
    encode_result: Callable[[Any, str], Any]
    exception_to_python: Callable[[Any], Any]
    on_chord_part_return: Callable[[Any, str, Any], Any]

    def is_unavailable(self, error: Exception) -> bool:
        """Return whether an error is due to the backend or the network, and not to the value to store."""
        raise NotImplementedError

    @property
    def place(self) -> str:
        """Where the results are, for error messages; without passwords."""
        raise NotImplementedError

    # Every request

    def with_retries(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make a request to the backend; while an outcome is being stored, retry it until it succeeds.

        Raises:
            Unavailable: the backend was unavailable for longer than the attempt may wait.
        """
        attempt = delivery.current
        if attempt is None or not attempt.store_until or attempt.request_in_progress:
            return call(*args, **options)  # Of nested requests, only the outermost is retried.
        backoff = FIRST_BACKOFF_SECONDS
        failures = 0
        while True:
            try:
                with _time_limit(attempt):
                    answer = call(*args, **options)
            except (Exception, _RequestTimeout) as error:
                if not isinstance(error, _RequestTimeout) and not self.is_unavailable(error):
                    raise
                failures += 1
                if failures == 1:
                    logger.warning("result backend unavailable, retrying: %s", describe(error))
                if not attempt.may_wait(backoff):
                    attempt.unavailable = True
                    raise Unavailable(describe(error)) from error
                backoff = min(MAX_BACKOFF_SECONDS, backoff * 2)
            else:
                if failures:
                    logger.info("result backend available again after %d failed requests", failures)
                return answer

    def get(self, key: Any) -> Any:
        """Return the value of a key."""
        return self.with_retries(super().get, key)  # type: ignore[misc]

    def mget(self, keys: Any) -> Any:
        """Return the values of some keys."""
        return self.with_retries(super().mget, keys)  # type: ignore[misc]

    def set(self, key: Any, value: Any, *rest: Any, **options: Any) -> Any:
        """Store a value."""
        return self.with_retries(super().set, key, value, *rest, **options)  # type: ignore[misc]

    def delete(self, key: Any) -> Any:
        """Delete a key."""
        return self.with_retries(super().delete, key)  # type: ignore[misc]

    def expire(self, key: Any, value: Any) -> Any:
        """Change how long a key is kept."""
        return self.with_retries(super().expire, key, value)  # type: ignore[misc]

    def _get_task_meta_for(self, task_id: Any) -> Any:
        """Return the stored state of a task; a response that cannot be decoded is requested again."""
        return self.with_retries(super()._get_task_meta_for, task_id)  # type: ignore[misc]

    # What is stored

    def check_storable(self, stored: Any, result: Any) -> None:
        """Refuse a return value that cannot be stored, or passed on to callbacks.

        Args:
            stored: the value to store; None if the result is ignored.
            result: the return value of the task.

        Raises:
            ResultNotStorableError: the reason.
        """
        try:
            size = len(self.encode(self.encode_result(stored, states.SUCCESS)))
            if stored is not result:
                dumps(result)
        except (EncodeError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise errors.ResultNotStorableError(
                f"the task returned a value of type {type(result).__name__} that cannot be stored as JSON: "
                f"{describe(error)}"
            ) from error
        if self.max_result_bytes is not None and size > self.max_result_bytes:
            raise errors.ResultNotStorableError(
                f"the task returned {size:,} bytes, but the result backend accepts {self.max_result_bytes:,}; store "
                f"large data elsewhere, for example in S3, and return its location"
            )

    def store_result(self, task_id: str, result: Any, state: str, *rest: Any, **options: Any) -> Any:
        """Store a state; a state that is not final, such as progress, is not retried."""
        attempt = delivery.current
        try:
            return super().store_result(task_id, result, state, *rest, **options)  # type: ignore[misc]
        except Exception as error:
            if attempt is None or state in states.READY_STATES or not self.is_unavailable(error):
                raise
            logger.warning("state %s not stored: result backend unavailable: %s", state, describe(error))
        return result

    def mark_as_retry(self, task_id: str, *args: Any, **options: Any) -> Any:
        """Store RETRY, which is not final; retry for a short time only."""
        attempt = delivery.current
        if attempt is None:
            return super().mark_as_retry(task_id, *args, **options)  # type: ignore[misc]
        until, attempt.store_until = attempt.store_until, time.monotonic() + delivery.STORE_RETRY_FOR_SECONDS
        try:
            return super().mark_as_retry(task_id, *args, **options)  # type: ignore[misc]
        except Unavailable as error:
            logger.warning("state RETRY not stored: result backend unavailable: %s", error)
        finally:
            attempt.store_until, attempt.unavailable = until, False

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        """Store SUCCESS, and notify the task's chord."""
        try:
            super().mark_as_done(task_id, result, request, store_result, state)  # type: ignore[misc]
        except Unavailable:
            self._hand_over("done", task_id, request, store_result, result=self.encode_result(result, state))
        _settle(task_id)

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store FAILURE, notify the task's chord or chain, and call errbacks."""
        traceback = cut(str(traceback), keep_end=True) if traceback is not None else None
        if isinstance(exc, UnpickleableExceptionWrapper):  # JSON needs no pickle.
            wrapped: Any = exc
            exc = create_exception_cls(wrapped.exc_cls_name, wrapped.exc_module)(*wrapped.exc_args)
        try:
            super().mark_as_failure(  # type: ignore[misc]
                task_id, exc, traceback, request, store_result, call_errbacks, state
            )
        except Unavailable:
            if request is None or request.id != task_id:
                raise  # Celery stores several states at once; they are handed over together.
            self._hand_over(
                "failed" if call_errbacks else "lost",
                task_id,
                request,
                store_result,
                result=self.encode_result(exc, state),
                traceback=traceback,
            )
        _settle(task_id)

    def _call_task_errbacks(self, request: Any, exc: Any, traceback: Any) -> None:
        """Call errbacks; even if they end this process, the task has failed and is not run again."""
        _settle(request.id)
        super()._call_task_errbacks(request, exc, traceback)  # type: ignore[misc]

    def chord_error_from_stack(self, callback: Any, exc: BaseException | None = None) -> Any:
        """Store that a chord failed, and notify an outer chord that contains it, which Celery does not."""
        answer = super().chord_error_from_stack(callback, exc)  # type: ignore[misc]
        options = callback.options
        if outer := options.get("chord"):
            group, index = options.get("group_id"), options.get("group_index")
            request = Context(id=callback.id, task=callback.task, chord=outer, group=group, group_index=index)
            error = exc or ChordError("a task of an inner chord failed")
            self.on_chord_part_return(request, states.FAILURE, error)
        return answer

    def mark_as_revoked(
        self, task_id: str, reason: str = "", request: Any = None, store_result: bool = True, **options: Any
    ) -> None:
        """Store REVOKED, and notify the task's chord."""
        try:
            super().mark_as_revoked(task_id, reason, request, store_result, **options)  # type: ignore[misc]
        except Unavailable:
            self._hand_over("revoked", task_id, request, store_result, result=reason)
        _settle(task_id)

    # Handing over

    def _hand_over(
        self, kind: str, task_id: str, request: Any, store_result: bool, result: Any, traceback: str | None = None
    ) -> None:
        """Send the outcome as a separate message to the queue of the task.

        Raises:
            Unavailable: the broker is unavailable as well.
        """
        attempt = delivery.current
        if attempt is None or request is None or not attempt.hands_over:
            raise Unavailable("the outcome cannot be handed over")
        outcome = {
            "kind": kind,
            "task_id": task_id,
            "request": _serialized_request(request),
            "store": store_result,
            "result": result,
            "traceback": traceback,
            "expires_at": time.time() + self.app.contract.result_expires_seconds,
        }
        group = (request.properties or {}).get("MessageGroupId")
        try:
            try:
                send_outcome(self.app, outcome, attempt.queue_name, group)
            except errors.MessageTooLargeError as error:
                lost = errors.ResultLostError(f"the task succeeded, but its result was lost: {error}")
                outcome.update(kind="lost", result=self.encode_result(lost, states.FAILURE), traceback=None)
                logger.error("result lost: the result backend is unavailable and the result is too large for a message")
                send_outcome(self.app, outcome, attempt.queue_name, group)
        except Exception as error:
            raise Unavailable(f"neither stored nor handed over: {describe(error)}") from error
        attempt.handed_over = True


@contextlib.contextmanager
def _time_limit(attempt: delivery.Attempt) -> Iterator[None]:
    """Limit the total time of a request, also if its response arrives byte by byte.

    Raises:
        _RequestTimeout: the request exceeded its time limit.
    """
    if threading.current_thread() is not threading.main_thread():  # Only the main thread can set signal handlers.
        yield
        return
    seconds = STOPPING_REQUEST_SECONDS if is_shutting_down() else delivery.REQUEST_SECONDS

    def end(*args: Any) -> None:
        if attempt.request_in_progress:
            raise _RequestTimeout(f"no response within {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    attempt.request_in_progress = True
    # Every second from then on: a library may catch any exception while it closes a connection.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        try:
            yield
        finally:
            attempt.request_in_progress = False
    finally:  # The signal may arrive in the inner `finally`.
        attempt.request_in_progress = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _settle(task_id: str) -> None:
    attempt = delivery.current
    if attempt is not None and attempt.task_id == task_id:
        attempt.settle()


def _serialized_request(request: Any) -> dict[str, Any]:
    """Return the parts of a request that a result backend needs, as JSON."""
    names = ("id", "task", "group", "group_index", "root_id", "parent_id", "chord", "chain", "errbacks", "properties")
    kept = {name: getattr(request, name, None) for name in names}
    properties = kept["properties"] or {}
    kept["properties"] = {name: properties[name] for name in ("MessageGroupId", "correlation_id") if name in properties}
    kept["children"] = [child.as_tuple() for child in getattr(request, "children", None) or ()]
    kept["ignore_result"] = bool(getattr(request, "ignore_result", False))
    kept["delivery_info"] = {"routing_key": (request.delivery_info or {}).get("routing_key")}
    return kept


def send_outcome(
    app: Any, outcome: dict[str, Any], queue_name: str, group: str | None, delay_seconds: float = 0
) -> None:
    """Send the task that stores an outcome.

    Args:
        app: the application.
        outcome: the argument of the task.
        queue_name: name of the queue in Celery.
        group: message group of the original task; if it has one, the new message gets a group of
            its own, so that it does not block the original group.
        delay_seconds: countdown of the message.

    Raises:
        MessageTooLargeError: the outcome is too large for a message, even compressed.
    """
    options: dict[str, Any] = {
        "queue": queue_name,
        "MessageGroupId": f"outcome-{outcome['task_id']}" if group else None,
        "add_to_parent": False,
        "ignore_result": True,
        "compression": "gzip" if len(dumps(outcome)) > app.contract.max_message_bytes // 2 else None,
        "countdown": delay_seconds or None,
    }
    chosen = {name: value for name, value in options.items() if value is not None}
    app.tasks[STORE_OUTCOME].apply_async(kwargs={"outcome": outcome}, **chosen)


def add_store_outcome(app: Any) -> None:
    """Register the task that stores the outcome of another task."""

    @app.task(name=STORE_OUTCOME, bind=True, ignore_result=True, max_retries=None, shared=False, lazy=False)  # type: ignore[untyped-decorator]
    def store_outcome(self: Any, outcome: dict[str, Any]) -> None:
        """Store an outcome that was handed over during an outage of the result backend.

        It is retried until the result would have expired.
        """
        attempt = delivery.current
        if attempt is None:
            raise RuntimeError("only workers can run this task")
        attempt.hands_over = False
        attempt.end()  # Time limits are for the code of services.
        attempt.store_until = min(attempt.hold_until - delivery.RESERVE_SECONDS, time.monotonic() + ATTEMPT_SECONDS)
        try:
            _store(app.backend, outcome)
        except Unavailable as error:
            if time.time() > outcome["expires_at"]:
                logger.error(
                    "outcome of task %s discarded: the result backend was unavailable until the result expired",
                    outcome["task_id"],
                )
            elif attempt.is_last:
                delay = min(RESEND_AFTER_SECONDS, attempt.queue.max_countdown_seconds)
                group = outcome["request"]["properties"].get("MessageGroupId")
                send_outcome(app, outcome, attempt.queue_name, group, delay)
            else:
                raise errors.ResultsUnavailableError(str(error)) from None
        finally:
            attempt.unavailable = False


def _store(backend: Any, outcome: dict[str, Any]) -> None:
    kept = dict(outcome["request"])
    children = [result_from_tuple(child, backend.app) for child in kept.pop("children")]
    request: Any = Context(kept)
    request.children.extend(children)
    task_id, store, result = outcome["task_id"], outcome["store"], outcome["result"]
    if outcome["kind"] == "done":
        backend.mark_as_done(task_id, result, request, store)
    elif outcome["kind"] == "revoked":
        backend.mark_as_revoked(task_id, result, request, store)
    else:
        error = backend.exception_to_python(result)
        if backend.encode_result(error, states.FAILURE) != result:  # For example, its class takes other arguments.
            error = create_exception_cls(result["exc_type"], result["exc_module"])(*result["exc_message"])
        backend.mark_as_failure(task_id, error, outcome["traceback"], request, store, outcome["kind"] == "failed")


class NoResults(ResilientBackend, DisabledBackend):  # type: ignore[misc]
    """The result backend of a service without results."""

    get_task_meta = DisabledBackend.get_task_meta_for
    """Raises NotImplementedError, for who asks for the state of a task."""

    def is_unavailable(self, error: Exception) -> bool:
        """Return False: it makes no requests."""
        return False

    def check_storable(self, stored: Any, result: Any) -> None:
        """Refuse a return value that cannot be passed on to callbacks."""
        super().check_storable(None, result)
