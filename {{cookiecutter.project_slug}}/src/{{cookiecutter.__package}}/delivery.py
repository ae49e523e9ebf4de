"""What becomes of a task that was not done, and of its message.

It stays in its queue and comes back after a pause that grows, until it is delivered for the last time; then it goes to
the dead-letter queue. Its result says RETRY meanwhile and FAILURE in the end, so that whoever waits for it, a chord for
example, waits for the end.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import Any

import celery
from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, NotRegistered, Reject, Retry, TaskPredicate
from celery.worker import consumer, request, state
from kombu.message import Message

from .logs import task_fields

logger = logging.getLogger(__name__)

# Its published type knows little of it.
BaseRequest: Any = request.Request

LONGEST_REASON = 4_000
"""Characters of a traceback that go with a message into the dead-letter queue: its end, where the error is."""


class ComesBack(Retry):
    """A task was not done, and its message will be delivered again.

    A `Retry`, because that is how Celery tells a result that is to come from one that failed.
    """


class Task(celery.Task[Any, Any]):
    """The base of every task; a task changes these by arguments of `@app.task(...)`."""

    Request = f"{__name__}:Request"

    permanent_errors: tuple[type[Exception], ...] = ()
    """Errors after which another try is useless: they go to the dead-letter queue at once, with the reason."""

    retry_backoff_seconds: float | None = None
    """How long a delivery that failed stays hidden at first, where the queue's own time does not fit; 0 to 43,200."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task, and let what it raises bring the message back if there is another delivery.

        Raises:
            ComesBack: the task failed and will be delivered again.
            Reject: the message waited so long in this worker that it could come back while the task still runs.
        """
        delivery: Any = self.request.delivery_info
        if self.request.called_directly or self.request.is_eager or not delivery:
            return super().__call__(*args, **kwargs)
        if time.monotonic() > delivery["start_before"]:
            raise Reject("it waited too long in the worker, and is given back", requeue=True)
        began = time.monotonic()
        outcome, level, trouble = "interrupted", logging.WARNING, None
        try:
            result = self.run(*args, **kwargs)
            outcome, level = "succeeded", logging.INFO
            return result
        except TaskPredicate as wish:  # It asked for a retry of its own, or to be ignored or rejected.
            outcome, level = type(wish).__name__.lower(), logging.INFO
            raise
        except Exception as error:
            trouble = error
            level = logging.INFO if isinstance(error, self.throws) else logging.ERROR
            if delivery["is_last"] or isinstance(error, self.permanent_errors):
                outcome = "dead-lettered"
                raise
            outcome, level = "comes back", min(level, logging.WARNING)
            raise ComesBack(f"{error!r}, comes back", error) from error
        finally:
            seconds = time.monotonic() - began
            logger.log(
                level,
                "%s in %.3f s",
                outcome,
                seconds,
                exc_info=trouble if level > logging.INFO else None,
                extra={"outcome": outcome, "duration_seconds": round(seconds, 3)},
            )


class Request(BaseRequest):  # type: ignore[misc]
    """One delivery of a task, in the worker's main process.

    https://docs.celeryq.dev/en/stable/userguide/tasks.html#requests-and-custom-requests
    """

    time_limits: Any
    """Hard and soft limit that the task or its sender chose."""

    def __init__(self, message: Message, **options: Any) -> None:
        super().__init__(message, **options)
        info = message.delivery_info
        queue = self.app.queue_served(info["routing_key"])
        self.is_last = info["receive_count"] >= queue.max_receive_count
        self.rejected = False
        if self.task.retry_backoff_seconds is not None:
            info["retry_backoff_seconds"] = self.task.retry_backoff_seconds
        limit = self.time_limits[0] or self.task.time_limit or queue.hard_limit_seconds
        if limit > queue.hard_limit_seconds:  # It would outlast its visibility timeout, and run twice.
            limit = queue.hard_limit_seconds
            soft_limit = self.time_limits[1] or self.task.soft_time_limit or queue.soft_limit_seconds
            self.time_limits = (limit, min(soft_limit, queue.soft_limit_seconds))
        # What the task gets to know, as `self.request.delivery_info`.
        self._delivery_info.update(
            receive_count=info["receive_count"],
            is_last=self.is_last,
            start_before=info["received_at"] + queue.hidden_seconds - limit,
        )
        # The message as it was received would go to the task's process a second time.
        properties = self._request_dict["properties"]
        self._request_dict["properties"] = {name: properties[name] for name in properties if name != "delivery_info"}

    def on_retry(self, exc_info: ExceptionInfo) -> None:
        """Leave the message in the queue; after a `retry()` of the task itself, a new one has been sent instead."""
        if isinstance(_error(exc_info), ComesBack):
            self.reject(requeue=True)
        else:
            super().on_retry(exc_info)

    def on_failure(self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Dead-letter what will not be tried again, with why; tell the result of a task whose process died."""
        permanent = isinstance(exc_info.type, type) and issubclass(exc_info.type, self.task.permanent_errors)
        # What the task asked for itself, and what was revoked or cancelled from outside, is no failure.
        withdrawn = self._already_cancelled or self._already_revoked
        failed = not withdrawn and not isinstance(_error(exc_info), (Ignore, Retry, Terminated))
        hopeless = permanent or (failed and self.is_last)
        hopeless = hopeless and not self.acknowledged
        dead_lettered = hopeless and self.message.channel.dead_letter(
            self.message, _reason(_error(exc_info), self._delivery_info["receive_count"], str(exc_info.traceback))
        )
        if dead_lettered:
            self.acknowledge()
        super().on_failure(exc_info, send_failed_event, return_ok)
        if (self.rejected or dead_lettered) and isinstance(_error(exc_info), (WorkerLostError, SystemExit)):
            self._say("its process died", _error(exc_info))

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Tell the result of a task that was killed at its hard limit; `on_failure` has seen to its message."""
        if soft or self.is_last or state.should_terminate:
            super().on_timeout(soft, timeout)
        else:
            state.task_ready(self)
            self._say(f"it was killed at its hard limit of {timeout} s", TimeLimitExceeded(timeout))

    def reject(self, requeue: bool = False) -> None:
        """Leave the message in its queue."""
        self.rejected = self.rejected or not self.acknowledged
        super().reject(requeue)

    def _say(self, what: str, error: BaseException) -> None:
        """Log and store that the task was not done, where its own process could not."""
        backend = self.task.backend
        fields = {**task_fields(self.name, self._context), "outcome": "dead-lettered" if self.is_last else "comes back"}
        if self.time_start:
            fields["duration_seconds"] = round(time.time() - self.time_start, 3)
        logger.error("not done: %s", what, extra=fields)
        if self.is_last:
            backend.mark_as_failure(self.id, error, request=self._context, store_result=self.store_errors)
        elif self.store_errors:
            backend.mark_as_retry(self.id, error, request=self._context)


class Consumer(consumer.Consumer):
    """Celery's consumer of messages, which loses none."""

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Leave a message whose body cannot be read in its queue; Celery would delete it."""
        headers: Any = message.headers or {}
        logger.error("The body of task %s[%s] cannot be read: %r", headers.get("task"), headers.get("id"), exc)
        self._leave(message, exc)

    def on_unknown_message(self, body: Any, message: Message) -> None:
        """Leave a message that is none of Celery's in its queue; Celery would log all of it, and call it deleted."""
        logger.error("a message of %s is none of Celery's", message.delivery_info["routing_key"])
        self._leave(message, ValueError("no message of Celery"))

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Leave a message that asks for what cannot be, such as a time that is none; Celery would log its arguments."""
        headers: Any = message.headers or {}
        logger.error("task %s[%s] cannot be done: %r", headers.get("task"), headers.get("id"), exc)
        self._leave(message, exc)

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:
        """Leave a message for a worker that knows its task; Celery would log its arguments, and call it failed."""
        headers: Any = message.headers or {}
        task, task_id = headers.get("task"), headers.get("id")
        logger.error(
            "no task is called %s in this worker, which loaded its tasks when it started: is it older than the sender?",
            task,
            extra={"task": task, "task_id": task_id, "attempt": message.delivery_info["receive_count"]},
        )
        error = NotRegistered(task)
        is_last = self._leave(message, error)
        if task_id:  # Older versions of Celery's messages have theirs elsewhere.
            backend: Any = self.app.backend
            try:
                (backend.mark_as_failure if is_last else backend.mark_as_retry)(task_id, error)
            except Exception:  # Of any result store; it must not end the worker.
                logger.exception("the result of %s[%s] cannot be stored", task, task_id)

    def _leave(self, message: Message, error: Exception) -> bool:
        """Leave a message in its queue, or dead-letter it with why; return whether that was its last delivery."""
        app: Any = self.app
        channel: Any = message.channel
        info = message.delivery_info
        is_last = info["receive_count"] >= app.queue_served(info["routing_key"]).max_receive_count
        if is_last and channel.dead_letter(message, _reason(error, info["receive_count"])):
            message.ack()
        else:
            message.reject()
        return bool(is_last)


def _reason(error: BaseException, attempt: int, traceback: str = "") -> dict[str, str]:
    """Return why a message is dead-lettered, as the on-call engineer will want to know it."""
    told = {
        "FailureException": _text(repr(error))[:LONGEST_REASON],
        "FailureTraceback": _text(traceback)[-LONGEST_REASON:],
        "FailureHost": _text(socket.gethostname()),
        "FailureAttempt": str(attempt),
    }
    return {name: value for name, value in told.items() if value}


def _error(exc_info: ExceptionInfo) -> BaseException:
    """Return the error itself, which billiard wraps to keep its traceback."""
    error: Any = exc_info.exception
    unwrapped: BaseException = (
        getattr(error, "exc", error) if type(error).__name__ == "ExceptionWithTraceback" else error
    )
    return unwrapped


def _text(text: str) -> str:
    """Return a text without what brokers do not take in an attribute of a message."""
    return "".join(c for c in text if c in "\t\n\r" or c.isprintable() or c == " ")
