"""The application as producers use it: what is sent is checked first, and goes to the right queue.

Docs: docs/delivery.md of the service.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import celery
from celery import Celery, canvas, current_task
from celery.exceptions import QueueNotFound
from celery.result import AsyncResult
from celery.utils import uuid
from celery.utils.functional import maybe_list
from celery.utils.time import maybe_iso8601, maybe_make_aware

from . import brokers, delivery, errors, logs
from .checks import is_accepted
from .contract import Contract, Queue
from .failures import describe
from .pool import is_shutting_down

if TYPE_CHECKING:
    from .settings import Settings

logger = logging.getLogger(__name__)

SEND_AGAIN_AFTER_SECONDS = 1
"""Pause of a task process whose broker is unavailable when the task is done and the next is to be sent."""


Own = TypeVar("Own", bound="Settings")
"""A service's own class of settings."""


class Service(Celery, Generic[Own]):
    """A Celery application whose messages carry what they need, wait where they may, and go out in batches if told."""

    contract: Contract
    settings: Own
    """The service's environment variables."""
    consumer: Any = None
    """What receives messages, in the main process of a worker."""
    task_cls = f"{__package__}.task:Task"

    def __init__(self, contract: Contract, settings: Own) -> None:
        self.broker = brokers.chosen(contract)
        self.control_cls = self.broker.CONTROL
        super().__init__(contract.package)
        self.contract = contract
        self.settings = settings
        self._served = {contract.celery_name(queue): queue for queue in contract.queues}
        self._modules = {f"{contract.package}.tasks.{queue.module}": queue for queue in contract.queues}
        self._gathering = threading.local()

    def queue_served(self, celery_name: str) -> Queue:
        """Return the contract's queue of that name inside Celery.

        Raises:
            KeyError: there is none.
        """
        return self._served[celery_name]

    def longest_countdown_seconds(self, queue: Queue) -> int:
        """Return the longest countdown that a queue allows."""
        return max(self.broker.longest_delay_seconds(self.contract), queue.max_countdown_seconds)

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        *positional: Any,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send a task; everything that is sent passes here: `delay`, retries, chains and chords.

        Celery's signals would be the other place, but they log exceptions instead of raising them.

        Args:
            name: name of the task.
            args: its positional arguments.
            kwargs: its keyword arguments.
            positional: further arguments of `Celery.send_task`.
            options: and by name; `MessageGroupId` is the message group. A task sent by a task is
                in the group of its sender unless it names another.

        Raises:
            RefusedError: it, or what is to follow it, cannot be honoured.
        """
        task_id = options["task_id"] = options.get("task_id") or uuid()
        group = _checked(options.pop("MessageGroupId", None) or _group_of_current_task())
        if name == "celery.chord_unlock":
            # It waits until a chord's tasks are done: in the chord's group it would hold them up.
            # What comes after them, which it sends, belongs there.
            if group:
                args[1]["options"].setdefault("MessageGroupId", group)
            group = None
            # Where a result never comes, nobody could read the others any longer after this time.
            kwargs.setdefault("max_retries", self.contract.result_expires_seconds)
        # Not the sender's: the broker would drop the new message as a repetition.
        options.pop("MessageDeduplicationId", None)
        attempt = f"{options.get('retries') or 0}:{options.get('replaced_task_nesting') or 0}"
        delay_seconds = self._checked_delay(name, args, kwargs, options)
        self._check_serializer(name, options)
        for following in ("link", "link_error", "chain", "chord"):
            self.check_canvas(options.get(following))
        options.update(self.broker.message_properties(self.contract, name, task_id, attempt, group, delay_seconds))
        request_id = logs.current_request_id()
        if request_id:
            options["headers"] = {**(options.get("headers") or {}), "request_id": request_id}
        return self._sent(name, args, kwargs, *positional, **options)

    def _sent(self, *args: Any, **options: Any) -> AsyncResult[Any]:
        """Send; what follows a task that is done, until the broker has it or its message could be visible again."""
        while True:
            try:
                return super().send_task(*args, **options)
            except Exception as error:
                attempt = delivery.current
                if attempt is None or not attempt.store_until or not self.broker.is_unavailable(error):
                    raise
                if is_shutting_down() or time.monotonic() + delivery.RESERVE_SECONDS > attempt.hold_until:
                    raise delivery.Unavailable(describe(error)) from error  # The task has not failed.
                time.sleep(SEND_AGAIN_AFTER_SECONDS)

    def check_canvas(self, following: Any) -> None:
        """Refuse what could not be sent later, by a worker: signatures, and those within them.

        Args:
            following: a signature, or several, or none.

        Raises:
            RefusedError: a countdown, a queue or a serializer of one cannot be honoured.
        """
        for signature in maybe_list(following) or ():
            if not isinstance(signature, Mapping) or "task" not in signature:
                continue
            name, kwargs = str(signature["task"]), signature.get("kwargs") or {}
            options = dict(signature.get("options") or {})
            if signature.get("subtask_type"):
                for inner in ("tasks", "header", "body"):
                    held = kwargs.get(inner)
                    if isinstance(held, (list, tuple, Mapping)):  # Not what makes its tasks one by one.
                        self.check_canvas(held)
            else:
                self._checked_delay(name, signature.get("args"), kwargs, options)
                self._check_serializer(name, options)
            for inner in ("link", "link_error", "chain", "chord"):
                self.check_canvas(options.get(inner))

    def find(self, name: str) -> celery.Task[Any, Any]:
        """Return the task called `<queue>.<function>`, or by its name within the package or its full name.

        Raises:
            UnknownTaskError: there is none; the message lists those there are.
        """
        self.loader.import_default_modules()
        package = self.contract.package
        queue, dot, function = name.partition(".")
        of_queue = f"{package}.tasks.{queue.replace('-', '_')}{dot}{function}"
        for candidate in (name, of_queue, f"{package}.{name}"):
            if candidate in self.tasks:
                return self.tasks[candidate]
        known = sorted(self.contract.short_name(task) for task in self.tasks if task.startswith(f"{package}."))
        raise errors.UnknownTaskError(f"no task {name!r}; there are: {', '.join(known) or 'none'}")

    def send(
        self,
        task: celery.Task[Any, Any] | str,
        *args: Any,
        group: str | None = None,
        countdown: float | None = None,
        **kwargs: Any,
    ) -> AsyncResult[Any]:
        """Send one task to its queue.

        Args:
            task: the task, or its name as in `find`.
            args: its positional arguments.
            group: its message group. On FIFO queues, what it must stay in order with; on standard
                queues, whom it is for, so that no one's flood of tasks holds up the others.
            countdown: seconds before it may start; the contract's `max_countdown_seconds` at the most.
            kwargs: its keyword arguments.

        Returns:
            A handle with the task's id, and its result where the service keeps results.

        Raises:
            UnknownTaskError: no task has that name.
            ValueError: the group, the countdown or the size does not fit.
        """
        signature = (self.find(task) if isinstance(task, str) else task).signature(args, kwargs)
        options: dict[str, Any] = {"MessageGroupId": group, "countdown": countdown}
        return signature.apply_async(**{name: value for name, value in options.items() if value is not None})

    def send_many(
        self, task: celery.Task[Any, Any] | str, arguments: Iterable[Sequence[Any]], group: str | None = None
    ) -> list[AsyncResult[Any]]:
        """Send one task many times, in a tenth of the requests or less.

        Args:
            task: the task, or its name as in `find`.
            arguments: the positional arguments of each.
            group: the message group of all; see `send`.

        Returns:
            A handle for each.

        Raises:
            NotAllSentError: some could not be sent; it knows which.
            UnknownTaskError: no task has that name.
            ValueError: the group or the size of one does not fit; nothing was sent.
        """
        found = self.find(task) if isinstance(task, str) else task
        with self.batching():
            return [self.send(found, *each, group=group) for each in arguments]

    @contextlib.contextmanager
    def batching(self) -> Iterator[None]:
        """Gather everything this thread sends in the `with` block, and send it in few requests at its end.

        `delay`, `apply_async`, groups and chords, and `send`, all take part. If the block raises, nothing is sent. If
        the broker does not take some messages, though that was tried repeatedly, the others are sent. What waits is
        kept in memory: use one block for some thousand tasks, not for a million.

        Raises:
            NotAllSentError: some messages could not be sent; it knows which.
        """
        if getattr(self._gathering, "producer", None):
            yield  # The outer block sends it.
            return
        producer: Any
        with self.producer_pool.acquire(block=True) as producer, producer.batch():
            self._gathering.producer = producer
            try:
                yield
            finally:
                self._gathering.producer = None

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """Return what sends: the given producer, that of `batching`, or one of the pool."""
        return super().producer_or_acquire(producer or getattr(self._gathering, "producer", None))

    def queue_of_task(self, name: str) -> Queue | None:
        """Return the queue in whose module a task is; none for a task of a library.

        Raises:
            UnknownQueueError: it is in a module of `tasks/` that is no queue's.
        """
        module = self._module_of(name)
        if module is None and not name.startswith("celery"):
            # A name of its own says nothing of its module.
            try:
                self.loader.import_default_modules()
            except ImportError as error:
                logger.warning("%s goes to the default queue unless it is sent with queue=...: %s", name, error)
            module = self._module_of(name)
        own = f"{self.contract.package}.tasks."
        if module is None or not module.startswith(own):
            return None
        for prefix, queue in self._modules.items():
            if module == prefix or module.startswith(f"{prefix}."):
                return queue
        raise errors.UnknownQueueError(
            f"{name} is in {module}, and contract.json has no queue of that name; there are: "
            f"{', '.join(queue.name for queue in self.contract.queues)}. Move the task into the module of a queue, or "
            f"send it with queue=..."
        )

    def _module_of(self, name: str) -> str | None:
        if name.startswith(f"{self.contract.package}.tasks."):
            return name.rpartition(".")[0]
        registered: Any = self
        task = registered._tasks.get(name)
        return None if task is None else str(task.__module__)

    def _checked_delay(self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> float:
        """Return in how many seconds a task is due; refuse what its queue does not allow, or a queue that is none."""
        try:
            queue = self.amqp.router.route(dict(options), name, args, kwargs)["queue"].name
        except QueueNotFound as error:
            known = ", ".join(self._served)
            raise errors.UnknownQueueError(f"{name} was not sent: {error}; there are: {known}") from None
        countdown, eta = options.get("countdown"), options.get("eta")
        if countdown is None:
            due = maybe_iso8601(eta)
            if due is None:
                return 0
            countdown = (maybe_make_aware(due) - self.now()).total_seconds()
        if queue in self._served:
            longest = self.longest_countdown_seconds(self._served[queue])
        else:
            longest = self.broker.longest_delay_seconds(self.contract)
        if countdown > longest and not name.startswith("celery."):
            raise errors.CountdownTooLongError(
                f"{name} was sent to be run in {countdown:.0f} seconds, and {queue} allows {longest}: its "
                f"message would be delivered again meanwhile. Raise max_countdown_seconds (and with it "
                f"visibility_timeout_seconds) in contract.json, or keep the time in a database and send when it is due."
            )
        return float(countdown)

    def _check_serializer(self, name: str, options: Mapping[str, Any]) -> None:
        """Refuse a serializer that workers do not accept."""
        serializer, accepted = options.get("serializer"), self.conf.accept_content or ()
        if is_accepted(serializer, accepted):
            return
        raise errors.SerializerError(
            f"{name} was not sent: its serializer is {serializer!r}, and workers accept {', '.join(accepted)} only. "
            f"Leave out `serializer`, and send what JSON can hold."
        )


def _check_group(apply_async: Any) -> Any:
    """Look at a whole group before its first message is sent, for which Celery has no place."""

    @functools.wraps(apply_async)
    def checked(self: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        tasks = self.tasks
        if isinstance(self.app, Service) and isinstance(tasks, (list, tuple)):
            self.app.check_canvas(list(tasks))
        return apply_async(self, args, kwargs, **options)

    return checked


canvas.group.apply_async = _check_group(canvas.group.apply_async)  # type: ignore[method-assign]


def _group_of_current_task() -> str | None:
    request = current_task.request if current_task else None
    properties = getattr(request, "properties", None) or {}
    group = properties.get("MessageGroupId")
    return str(group) if group else None


def _checked(group: object) -> str | None:
    """Refuse what is no message group."""
    if group is None:
        return None
    text = str(group)
    if not 1 <= len(text) <= 128 or not all("!" <= character <= "~" for character in text):
        raise errors.MessageGroupError(
            f"MessageGroupId must be 1 to 128 letters, digits or punctuation marks of ASCII, "
            f"without spaces; given: {text!r}"
        )
    return text


def route_by_module(
    app: Service[Any], name: str, args: Any = None, kwargs: Any = None, options: Any = None, **rest: Any
) -> dict[str, str] | None:
    """Send a task in `tasks/high.py` to the queue `high`, whatever its name; leave others to the default queue."""
    if options and options.get("queue"):
        return None  # Its sender has chosen.
    queue = app.queue_of_task(name)
    return None if queue is None else {"queue": app.contract.celery_name(queue)}
