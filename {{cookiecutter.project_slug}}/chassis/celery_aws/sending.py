"""The application as producers use it: it checks, routes and batches messages.

See docs/delivery.md of the service.
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

RETRY_SEND_AFTER_SECONDS = 1
"""Delay between attempts of a task process to send callbacks while the broker is unavailable."""

SettingsT = TypeVar("SettingsT", bound="Settings")
"""The settings class of a service."""


class Service(Celery, Generic[SettingsT]):
    """A Celery application that routes by module, checks what it sends, and can send in batches."""

    contract: Contract
    settings: SettingsT
    """The service's environment variables."""
    consumer: Any = None
    """The consumer of messages, in the main process of a worker."""
    task_cls = f"{__package__}.task:Task"

    def __init__(self, contract: Contract, settings: SettingsT) -> None:
        self.broker = brokers.chosen(contract)
        self.control_cls = self.broker.CONTROL
        super().__init__(contract.package)
        self.contract = contract
        self.settings = settings
        self._served = {contract.celery_name(queue): queue for queue in contract.queues}
        self._modules = {f"{contract.package}.tasks.{queue.module}": queue for queue in contract.queues}
        self._gathering = threading.local()

    def queue_served(self, celery_name: str) -> Queue:
        """Return the queue with that name in Celery.

        Raises:
            KeyError: the contract has no such queue.
        """
        return self._served[celery_name]

    def longest_countdown_seconds(self, queue: Queue) -> int:
        """Return the longest countdown that a queue allows, in seconds."""
        return max(self.broker.longest_delay_seconds(self.contract), queue.max_countdown_seconds)

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        *positional: Any,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send a task. `delay`, retries, chains and chords all call this method.

        Celery's signals cannot do this: they log exceptions instead of raising them.

        Args:
            name: name of the task.
            args: its positional arguments.
            kwargs: its keyword arguments.
            positional: further positional arguments of `Celery.send_task`.
            options: further keyword arguments; `MessageGroupId` is the message group. A task that a
                task sends inherits the group of that task by default.

        Raises:
            RefusedError: the task, or a callback of it, cannot be honoured.
        """
        task_id = options["task_id"] = options.get("task_id") or uuid()
        group = _checked(options.pop("MessageGroupId", None) or _group_of_current_task())
        if name == "celery.chord_unlock":
            # It polls until a chord's tasks are done: in the chord's group it would block them.
            # The body of the chord, which it sends, belongs to the group.
            if group:
                args[1]["options"].setdefault("MessageGroupId", group)
            group = None
            # If a result never arrives, the other results have expired after this many retries.
            kwargs.setdefault("max_retries", self.contract.result_expires_seconds)
        # An inherited id would make the broker drop the new message as a duplicate.
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
        """Send a message; retry callbacks of a task that has ended for as long as its message is invisible."""
        while True:
            try:
                return super().send_task(*args, **options)
            except Exception as error:
                attempt = delivery.current
                if attempt is None or not attempt.store_until or not self.broker.is_unavailable(error):
                    raise
                if is_shutting_down() or time.monotonic() + delivery.RESERVE_SECONDS > attempt.hold_until:
                    raise delivery.Unavailable(describe(error)) from error  # The task has not failed.
                time.sleep(RETRY_SEND_AFTER_SECONDS)

    def check_canvas(self, following: Any) -> None:
        """Refuse signatures, also nested ones, that a worker could not send later.

        Args:
            following: a signature, a list of signatures, or None.

        Raises:
            RefusedError: a countdown, a queue or a serializer cannot be honoured.
        """
        for signature in maybe_list(following) or ():
            if not isinstance(signature, Mapping) or "task" not in signature:
                continue
            name, kwargs = str(signature["task"]), signature.get("kwargs") or {}
            options = dict(signature.get("options") or {})
            if signature.get("subtask_type"):
                for inner in ("tasks", "header", "body"):
                    held = kwargs.get(inner)
                    if isinstance(held, (list, tuple, Mapping)):  # A generator can be read only once.
                        self.check_canvas(held)
            else:
                self._checked_delay(name, signature.get("args"), kwargs, options)
                self._check_serializer(name, options)
            for inner in ("link", "link_error", "chain", "chord"):
                self.check_canvas(options.get(inner))

    def find(self, name: str) -> celery.Task[Any, Any]:
        """Return a task by its short name, `<module>.<function>`, its name within the package, or its full name.

        Raises:
            UnknownTaskError: there is no such task; the message lists all tasks.
        """
        self.loader.import_default_modules()
        package = self.contract.package
        queue, dot, function = name.partition(".")
        of_queue = f"{package}.tasks.{queue.replace('-', '_')}{dot}{function}"
        for candidate in (name, of_queue, f"{package}.{name}"):
            if candidate in self.tasks:
                return self.tasks[candidate]
        known = sorted(self.contract.short_name(task) for task in self.tasks if task.startswith(f"{package}."))
        raise errors.UnknownTaskError(f"unknown task {name!r}; tasks: {', '.join(known) or 'none'}")

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
            group: its message group. FIFO queues run the tasks of a group in order; standard queues
                share workers fairly between groups, such as tenants.
            countdown: delay in seconds; see `longest_countdown_seconds`.
            kwargs: its keyword arguments.

        Returns:
            A handle with the task's id, and its result if the service keeps results.

        Raises:
            UnknownTaskError: there is no such task.
            ValueError: the group, the countdown or the message size is invalid.
        """
        signature = (self.find(task) if isinstance(task, str) else task).signature(args, kwargs)
        options: dict[str, Any] = {"MessageGroupId": group, "countdown": countdown}
        return signature.apply_async(**{name: value for name, value in options.items() if value is not None})

    def send_many(
        self, task: celery.Task[Any, Any] | str, arguments: Iterable[Sequence[Any]], group: str | None = None
    ) -> list[AsyncResult[Any]]:
        """Send one task with many sets of arguments, in batches.

        Args:
            task: the task, or its name as in `find`.
            arguments: the positional arguments of each message.
            group: the message group of all messages; see `send`.

        Returns:
            A handle for each message.

        Raises:
            NotAllSentError: some messages could not be sent; `failed` lists them.
            UnknownTaskError: there is no such task.
            ValueError: the group or a message size is invalid; nothing was sent.
        """
        found = self.find(task) if isinstance(task, str) else task
        with self.batching():
            return [self.send(found, *each, group=group) for each in arguments]

    @contextlib.contextmanager
    def batching(self) -> Iterator[None]:
        """Collect all messages that this thread sends in the `with` block, and send them in batches at its end.

        This includes `send`, `delay`, `apply_async`, groups and chords. If the block raises, nothing
        is sent. If the broker refuses some messages, the others are sent. Messages are kept in memory
        until then: use one block for some thousand messages, not for a million.

        Raises:
            NotAllSentError: some messages could not be sent; `failed` lists them.
        """
        if getattr(self._gathering, "producer", None):
            yield  # The outer block sends the messages.
            return
        producer: Any
        with self.producer_pool.acquire(block=True) as producer, producer.batch():
            self._gathering.producer = producer
            try:
                yield
            finally:
                self._gathering.producer = None

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """Return the given producer, or that of `batching`, or one of the pool."""
        return super().producer_or_acquire(producer or getattr(self._gathering, "producer", None))

    def queue_of_task(self, name: str) -> Queue | None:
        """Return the queue of the module that defines a task; None for tasks outside `tasks/`.

        Raises:
            UnknownQueueError: the module is in `tasks/`, but the contract has no such queue.
        """
        module = self._module_of(name)
        if module is None and not name.startswith("celery"):
            # A custom name does not contain the module.
            try:
                self.loader.import_default_modules()
            except ImportError as error:
                logger.warning("%s goes to the default queue unless sent with queue=...: %s", name, error)
            module = self._module_of(name)
        own = f"{self.contract.package}.tasks."
        if module is None or not module.startswith(own):
            return None
        for prefix, queue in self._modules.items():
            if module == prefix or module.startswith(f"{prefix}."):
                return queue
        raise errors.UnknownQueueError(
            f"{name} is in {module}, but contract.json has no queue of that name; queues: "
            f"{', '.join(queue.name for queue in self.contract.queues)}. Move the task to the module of a queue, or "
            f"send it with queue=..."
        )

    def _module_of(self, name: str) -> str | None:
        if name.startswith(f"{self.contract.package}.tasks."):
            return name.rpartition(".")[0]
        registered: Any = self
        task = registered._tasks.get(name)
        return None if task is None else str(task.__module__)

    def _checked_delay(self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> float:
        """Return the delay of a task in seconds.

        Raises:
            CountdownTooLongError: the queue does not allow the delay.
            UnknownQueueError: the queue is not in the contract.
        """
        try:
            queue = self.amqp.router.route(dict(options), name, args, kwargs)["queue"].name
        except QueueNotFound as error:
            known = ", ".join(self._served)
            raise errors.UnknownQueueError(f"{name} was not sent: {error}; queues: {known}") from None
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
                f"{name} was not sent: its countdown is {countdown:.0f} seconds, but {queue} allows {longest}; the "
                f"message would be redelivered before that. Raise max_countdown_seconds (and with it "
                f"visibility_timeout_seconds) in contract.json, or store the time and send the task when it is due."
            )
        return float(countdown)

    def _check_serializer(self, name: str, options: Mapping[str, Any]) -> None:
        """Refuse a serializer that workers do not accept.

        Raises:
            SerializerError: workers do not accept it.
        """
        serializer, accepted = options.get("serializer"), self.conf.accept_content or ()
        if is_accepted(serializer, accepted):
            return
        raise errors.SerializerError(
            f"{name} was not sent: its serializer is {serializer!r}, but workers accept only {', '.join(accepted)}. "
            f"Leave out `serializer`, and send values that JSON can represent."
        )


def _check_group(apply_async: Any) -> Any:
    """Check a whole group before its first message is sent; Celery has no hook for that."""

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
    """Return a valid message group.

    Raises:
        MessageGroupError: it is not 1 to 128 visible ASCII characters.
    """
    if group is None:
        return None
    text = str(group)
    if not 1 <= len(text) <= 128 or not all("!" <= character <= "~" for character in text):
        raise errors.MessageGroupError(
            f"MessageGroupId must be 1 to 128 ASCII letters, digits or punctuation marks, without spaces; "
            f"given: {text!r}"
        )
    return text


def route_by_module(
    app: Service[Any], name: str, args: Any = None, kwargs: Any = None, options: Any = None, **rest: Any
) -> dict[str, str] | None:
    """Route a task in `tasks/high.py` to the queue `high`; return None for the default queue."""
    if options and options.get("queue"):
        return None  # The producer has chosen a queue.
    queue = app.queue_of_task(name)
    return None if queue is None else {"queue": app.contract.celery_name(queue)}
