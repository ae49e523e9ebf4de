"""The application as producers use it: it checks, routes and batches messages.

See docs/delivery.md of the service.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
from collections import UserList
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import celery
from celery import Celery, canvas, current_task
from celery.exceptions import QueueNotFound
from celery.result import AsyncResult
from celery.utils import uuid
from celery.utils.functional import maybe_list
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu import serialization

from . import brokers, configuration, delivery, errors, log_fields, strays, tracing
from .checks import is_accepted
from .contract import Contract, Queue
from .failures import describe
from .headers import MAX_ID_CHARACTERS, is_identifier
from .pool import is_shutting_down

if TYPE_CHECKING:
    from .settings import ProducerSettings

logger = logging.getLogger(__name__)

RETRY_SEND_AFTER_SECONDS = 1
"""Delay between attempts of a task process to send callbacks while the broker is unavailable."""


@dataclass(frozen=True)
class Prepared:
    """A message that was checked, and that can be sent later; see `Service.prepare`."""

    task: str
    """Full name of the task."""
    task_id: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    group: str | None = None
    """Message group."""
    ordering_key: str | None = None
    """On FIFO queues, messages with the same key must be sent in order."""


SettingsT = TypeVar("SettingsT", bound="ProducerSettings")
"""The settings class of a service."""


class Service(Celery, Generic[SettingsT]):
    """A Celery application that routes by module, checks what it sends, and can send in batches."""

    contract: Contract
    settings: SettingsT
    """The service's environment variables."""
    consumer: Any = None
    """The consumer of messages, in the main process of a worker."""
    configured: bool
    namespace: str | None
    task_cls = f"{__package__}.task:Task"
    library = __package__
    """Import name of the library that created this application.

    A client contains a copy under another name, whose signal handlers must leave this application alone.
    """
    builtin_fixups = {f"{__package__}.django.fixup:fixup"}  # noqa: RUF012 - as in Celery
    own_settings: Mapping[str, Any] = {}
    """Celery's settings that follow from the contract and the environment variables; see `configuration`."""

    def __init__(self, contract: Contract, settings: SettingsT, **options: Any) -> None:
        self.broker = brokers.chosen(contract)
        self.control_cls = self.broker.CONTROL
        super().__init__(contract.package, **options)
        self.contract = contract
        self.settings = settings
        self.tracing = tracing.chosen(contract, settings.environment)
        self._served = {contract.celery_name(queue): queue for queue in contract.queues}
        self._modules = {f"{contract.package}.tasks.{queue.module}": queue for queue in contract.queues}
        self._gathering = threading.local()
        self._has_imported_tasks = False

    def set_own(self, *args: Any, **options: Any) -> None:
        """Set Celery settings that a configuration module, such as Django's settings, must not contradict.

        Args:
            args: the settings as a mapping.
            options: settings by their names.
        """
        settings = dict(*args, **options)
        self.own_settings = {**self.own_settings, **settings}
        self.conf.update(settings)

    def config_from_object(self, obj: Any, *args: Any, **options: Any) -> Any:
        """Read further Celery settings from a module when they are needed; what is set on the application is kept.

        Reading them raises `UnsupportedError` if they contradict `own_settings`.

        Args:
            obj: the module's name, such as `django.conf:settings`, or an object.
            args: further positional arguments of `Celery.config_from_object`.
            options: its keyword arguments; with `namespace="CELERY"`, names begin with `CELERY_`.
        """
        # Celery forgets what was set since the configuration was first read.
        kept = dict(self.conf.changes or {}) if self.configured else {}
        loaded = super().config_from_object(obj, *args, **options)
        if kept:
            self.conf.update(kept)
        return loaded

    def prepare_config(self, c: Any) -> Any:
        """Check the settings of a module before they are used; Celery calls this.

        Raises:
            UnsupportedError: they contradict `own_settings`.
        """
        configuration.check(c, self.own_settings, self.namespace)
        return super().prepare_config(c)

    # Celery's own environment variables, such as CELERY_BROKER_URL, are for other applications in this process. They
    # change attributes of `conf`, but not its items.

    @property
    def backend_cls(self) -> Any:  # type: ignore[override]
        """The URL of the result backend."""
        return self.conf["result_backend"]

    def connection_for_read(self, url: Any = None, **options: Any) -> Any:
        """Return a connection of a worker to the broker."""
        return super().connection_for_read(url or self.conf["broker_url"], **options)

    def connection_for_write(self, url: Any = None, **options: Any) -> Any:
        """Return a connection of a producer to the broker."""
        return super().connection_for_write(url or self.conf["broker_url"], **options)

    def queue_served(self, celery_name: str) -> Queue:
        """Return the queue with that name in Celery.

        Raises:
            UnknownNameError: the contract has no such queue.
        """
        return self._served[celery_name]

    @functools.cached_property
    def queues_consumed(self) -> list[Queue]:
        """The queues of the worker in this process, in the order of its command line, also while they are paused."""
        return [self.queue_served(name) for name in self.amqp.queues.consume_from]

    def longest_countdown_seconds(self, queue: Queue) -> int:
        """Return the longest countdown that a queue allows, in seconds."""
        return max(self.broker.longest_delay_seconds(queue), queue.max_countdown_seconds)

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
        prepared: list[Prepared] | None = options.pop("prepared", None)
        queue, group, properties = self._check_message(name, args, kwargs, options)
        if prepared is not None:
            self._check_size(name, queue, args, kwargs, options, properties)
            prepared.append(Prepared(name, options["task_id"], args, kwargs, group, self._ordering_key(queue, group)))
            return self.AsyncResult(options["task_id"])
        with self.tracing.sending(name, queue, options):
            return self._sent(name, args, kwargs, *positional, **options)

    def _check_message(
        self, name: str, args: Any, kwargs: Any, options: dict[str, Any]
    ) -> tuple[str, str | None, Mapping[str, Any]]:
        """Check a message, and complete its options.

        Returns:
            The name in Celery of its queue, its message group, and the broker's own properties.
        """
        options["task_id"] = options.get("task_id") or uuid()
        self._name_queue(options)
        queue = self._queue_of(name, args, kwargs, options)
        delay_seconds = self._checked_delay(name, queue, options)
        self._check_serializer(name, options)
        task = self._class_of(name)
        group = _checked(self._group_of(task, name, args, kwargs, options))
        self._check_following(options, group)
        key = _stated(task, "deduplication_key", args, kwargs)
        if name == "celery.chord_unlock":
            self._adapt_chord_unlock(args, kwargs, group)
            self.check_canvas(args[1], None)
            group = None
        options.pop("MessageDeduplicationId", None)  # The broker would drop the message as a duplicate.
        properties = self._properties(name, options, queue, delay_seconds, group, key)
        options.update(properties)
        request_id = log_fields.current_request_id()
        if request_id:
            options["headers"] = {**(options.get("headers") or {}), "request_id": request_id}
        return queue, group, properties

    def _ordering_key(self, queue: str, group: str | None) -> str | None:
        served = self._served.get(queue)
        return f"{served.name}:{group}" if served is not None and served.fifo else None

    def _check_size(
        self, name: str, queue: str, args: Any, kwargs: Any, options: Mapping[str, Any], properties: Mapping[str, Any]
    ) -> None:
        """Refuse a message that is too large, without a connection to the broker.

        Raises:
            MessageTooLargeError: it is too large, or may be if another process sends it.
            kombu.exceptions.EncodeError: its arguments cannot be serialized.
        """
        if options.get("compression") or self.conf.task_compression:
            return  # The size is known when it is sent.
        known = {key: value for key, value in options.items() if key not in ("task_id", "headers")}
        message = self.amqp.create_task_message(options["task_id"], name, args, kwargs, **known)
        serializer = options.get("serializer") or self.conf.task_serializer
        _, _, body = serialization.dumps(message.body, serializer)
        headers = {**message.headers, **(options.get("headers") or {})}
        sent = brokers.Composed(queue, body, headers, {**message.properties, **properties})
        self.broker.check_prepared_size(sent, self.conf.broker_transport_options)

    def _properties(
        self,
        name: str,
        options: Mapping[str, Any],
        queue: str,
        delay_seconds: float,
        group: str | None,
        key: str | None,
    ) -> Mapping[str, Any]:
        """Return the broker's own properties of a message.

        Raises:
            DeduplicationError: the broker, or the queue, does not support the deduplication key.
            MessageGroupMissingError: the queue requires a message group.
        """
        served = self._served.get(queue)
        longest = self.longest_countdown_seconds(served) if served else math.inf
        return self.broker.message_properties(
            brokers.Outgoing(
                served,
                name,
                options.get("task_id") or "",
                attempt=f"{options.get('retries') or 0}:{options.get('replaced_task_nesting') or 0}",
                group=group,
                deduplication_key=key,
                delay_seconds=delay_seconds,
                is_scheduled=delay_seconds > longest and not name.startswith("celery."),
            )
        )

    def _import_tasks(self) -> None:
        """Import the modules of tasks, once: in a process of Django, Celery makes all checks of Django with it."""
        if not self._has_imported_tasks:
            self.loader.import_default_modules()
            self._has_imported_tasks = True

    def _class_of(self, name: str) -> type:
        """Return the class of a task, after loading all tasks if it is not known; that of None if there is none."""
        if name not in self.tasks and not name.startswith("celery."):
            with contextlib.suppress(ImportError):  # A producer may lack what the tasks need.
                self._import_tasks()
        return type(self.tasks.get(name))

    def _group_of(self, task: type, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> str | None:
        """Return the message group of a message: the producer's, or the task's own, or that of the running task.

        A retry stays in the group of its message.
        """
        chosen, inherited = options.pop("MessageGroupId", None), _group_of_current_task()
        if not chosen and inherited and current_task.request.id == options["task_id"] and current_task.name == name:
            chosen = inherited
        return chosen or _stated(task, "message_group", args, kwargs) or inherited

    def _adapt_chord_unlock(self, args: Any, kwargs: Any, group: str | None) -> None:
        """Hand the group of a chord to its body.

        `celery.chord_unlock` polls until a chord's tasks are done, so that it would block its own group.
        """
        body = args[1]
        if group and getattr(self._class_of(str(body.get("task"))), "message_group", None) is None:
            body["options"].setdefault("MessageGroupId", group)
        # If a result never arrives, the other results have expired after this many retries.
        if kwargs.get("max_retries") is None:
            kwargs["max_retries"] = self.contract.result_expires_seconds

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

    def check_canvas(
        self,
        following: Any,
        group: str | None,
        *,
        in_turn: bool = False,
        in_chord: bool = False,
        delay: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Refuse signatures, also nested ones, that a worker could not send later.

        Args:
            following: a signature, a list of signatures, or None.
            group: the message group of the message that they follow, which they inherit.
            in_turn: whether each signature of the list follows the one before it.
            in_chord: whether they are in the header of a chord.
            delay: the `countdown` or `eta` that they inherit; with `in_turn`, only the first one does.

        Returns:
            The message group that what follows them inherits.

        Raises:
            RefusedError: a countdown, a queue, a serializer, a message group or its lack, or a deduplication key
                cannot be honoured.
        """
        last = group
        for signature in maybe_list(following) or ():
            if isinstance(signature, Mapping) and "task" in signature:
                last = self._check_signature(signature, last if in_turn else group, in_chord, delay or {}) or last
                delay = None if in_turn else delay
        return last

    def _check_signature(
        self, signature: Mapping[str, Any], group: str | None, in_chord: bool, delay: Mapping[str, Any]
    ) -> str | None:
        """Check a signature and what follows it; see `check_canvas`."""
        name, kwargs = str(signature["task"]), signature.get("kwargs") or {}
        options = {**(signature.get("options") or {}), **delay}
        self._name_queue(options)
        chosen = _checked(options.get("MessageGroupId"))
        if signature.get("subtask_type"):
            group = chosen or group
            for inner in ("tasks", "header", "body"):
                held = kwargs.get(inner)
                if isinstance(held, Mapping) or _is_at_hand(held):
                    in_turn = signature["subtask_type"] == "chain"
                    later = None if inner == "body" else _delay_in(options)
                    in_header = in_chord or inner == "header"
                    group = self.check_canvas(held, group, in_turn=in_turn, in_chord=in_header, delay=later)
        else:
            queue = self._queue_of(name, signature.get("args"), kwargs, options)
            delay_seconds = self._checked_delay(name, queue, options)
            if in_chord and delay_seconds > self.contract.result_expires_seconds:
                raise errors.CountdownTooLongError(
                    f"{name} was not sent: it is in the header of a chord and its countdown is {delay_seconds:.0f} "
                    f"seconds, but the results of the other tasks expire after {self.contract.result_expires_seconds}, "
                    f"so the chord would never be complete. Put a delayed task before the chord, or raise "
                    f"result_expires_seconds in contract.json."
                )
            self._check_serializer(name, options)
            task = self._class_of(name)
            group = chosen or _text_or_unknown(task, "message_group") or group
            self._properties(name, options, queue, delay_seconds, group, _text_or_unknown(task, "deduplication_key"))
        self._check_following(options, group)
        return group

    def _check_following(self, options: Mapping[str, Any], group: str | None) -> None:
        """Check what follows a message with some options and message group; see `check_canvas`."""
        for following in ("link", "link_error", "chord"):
            self.check_canvas(options.get(following), group)
        self.check_canvas(list(reversed(options.get("chain") or ())), group, in_turn=True)  # Celery has the last first.

    def find(self, name: str) -> celery.Task[Any, Any]:
        """Return a task by its short name, `<module>.<function>`, its name within the package, or its full name.

        Raises:
            UnknownTaskError: there is no such task; the message lists all tasks.
        """
        self._import_tasks()
        package = self.contract.package
        queue, dot, function = name.partition(".")
        of_queue = f"{package}.tasks.{queue.replace('-', '_')}{dot}{function}"
        for candidate in (name, of_queue, f"{package}.{name}"):
            if candidate in self.tasks:
                return self.tasks[candidate]
        for module, why in strays.stray_modules(self.contract).items():
            if module in name.replace("-", "_").split(".")[:-1]:
                raise errors.UnknownTaskError(f"unknown task {name!r}: {why}")
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

    def prepare(
        self,
        task: celery.Task[Any, Any] | str,
        *args: Any,
        group: str | None = None,
        countdown: float | None = None,
        **kwargs: Any,
    ) -> Prepared:
        """Check one task as `send` does, with the same arguments and errors.

        The message has no countdown: the caller stores when it is due. This makes no request. With
        `task_always_eager`, nothing is checked.
        """
        found = self.find(task) if isinstance(task, str) else task
        if self.conf.task_always_eager:  # Celery would run the task.
            return Prepared(found.name, uuid(), args, kwargs, group)
        prepared: list[Prepared] = []
        options: dict[str, Any] = {"MessageGroupId": group, "countdown": countdown}
        chosen = {name: value for name, value in options.items() if value is not None}
        found.signature(args, kwargs).apply_async(prepared=prepared, **chosen)
        (only,) = prepared
        return only

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
    def batching(self, timeout_seconds: float | None = None) -> Iterator[None]:
        """Collect all messages that this thread sends in the `with` block, and send them in batches at its end.

        This includes `send`, `delay`, `apply_async`, groups and chords. If the block raises, nothing
        is sent. If the broker refuses some messages, the others are sent. Messages are kept in memory
        until then: use one block for some thousand messages, not for a million.

        Args:
            timeout_seconds: how long to wait while all connections of the pool are in use; by default without limit.

        Raises:
            kombu.exceptions.LimitExceeded: no connection became free in time.
            NotAllSentError: some messages could not be sent; `failed` lists them.
        """
        if getattr(self._gathering, "producer", None):
            yield  # The outer block sends the messages.
            return
        # The pool of producers would wait for a connection without a limit.
        connections: Any = self.producer_pool.connections
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(connections.acquire(block=True, timeout=timeout_seconds))
            producer: Any = stack.enter_context(self.producer_pool.Producer(connection))
            stack.enter_context(producer.batch())
            self._gathering.producer = producer
            try:
                yield
            finally:
                self._gathering.producer = None

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """Return the given producer, or that of `batching`, or one of the pool."""
        return super().producer_or_acquire(producer or getattr(self._gathering, "producer", None))

    def queue_of_task(self, name: str) -> Queue | None:
        """Return the queue of the module that defines a task; for tasks outside `tasks/`, that of a route, or None.

        Raises:
            UnknownQueueError: the module is in `tasks/`, but the contract has no such queue.
        """
        module = self._module_of(name)
        if module is None and not name.startswith("celery"):
            # A custom name does not contain the module.
            try:
                self._import_tasks()
            except ImportError as error:
                logger.warning("%s goes to the default queue unless sent with queue=...: %s", name, error)
            module = self._module_of(name)
        own = f"{self.contract.package}.tasks."
        if module is None or not module.startswith(own):
            return self.contract.route(name)
        for prefix, queue in self._modules.items():
            if module == prefix or module.startswith(f"{prefix}."):
                return queue
        raise errors.UnknownQueueError(
            f"{name} is in {module}, but contract.json has no queue of that name; queues: "
            f"{', '.join(queue.name for queue in self.contract.queues)}. Move the task to the module of a queue, or "
            f"name the queue: task.apply_async(..., queue=...)."
        )

    def _module_of(self, name: str) -> str | None:
        if name.startswith(f"{self.contract.package}.tasks."):
            return name.rpartition(".")[0]
        registered: Any = self
        task = registered._tasks.get(name)
        return None if task is None else str(task.__module__)

    def _name_queue(self, options: dict[str, Any]) -> None:
        """Replace the name of a queue in the contract by its name in Celery, which ends with `.fifo` if it is FIFO."""
        for celery_name, served in self._served.items():
            if options.get("queue") == served.name:
                options["queue"] = celery_name

    def _queue_of(self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> str:
        """Return the name in Celery of the queue to which a task is routed.

        Raises:
            UnknownQueueError: the queue is not in the contract.
        """
        try:
            return str(self.amqp.router.route(dict(options), name, args, kwargs)["queue"].name)
        except QueueNotFound as error:
            known = ", ".join(self._served)
            raise errors.UnknownQueueError(f"{name} was not sent: {error}; queues: {known}") from None

    def _checked_delay(self, name: str, queue: str, options: Mapping[str, Any]) -> float:
        """Return the delay of a task in seconds.

        Raises:
            CountdownTooLongError: the queue does not allow the delay.
            UnsupportedDelayError: the countdown is not a number, or the ETA not a time.
        """
        countdown, eta = options.get("countdown"), options.get("eta")
        try:
            if not countdown:  # As Celery does, also if it is 0.
                due = maybe_iso8601(eta)
                if due is None:
                    return 0
                countdown = (maybe_make_aware(due) - self.now()).total_seconds()
            elif not math.isfinite(countdown):
                raise ValueError("it is not finite")
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise errors.UnsupportedDelayError(
                f"{name} was not sent: its countdown is {countdown!r} and its eta is {eta!r}. Give one of them: a "
                f"number of seconds, or a datetime."
            ) from error
        if queue in self._served:
            longest = self.longest_countdown_seconds(self._served[queue])
        else:
            longest = self.broker.longest_delay_seconds(None)
        can_wait = countdown <= longest or name.startswith("celery.")
        if not can_wait and not (self.contract.long_delays and queue in self._served):
            raise errors.CountdownTooLongError(
                f"{name} was not sent: its countdown is {countdown:.0f} seconds, but {queue} allows {longest}"
                f"{self.broker.COUNTDOWN_LIMIT}, or store the time and send the task when it is due."
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


def _check_first(kind: Any) -> None:
    """Check a whole group or chord before its first message is sent, and trace it; Celery has no hook for that."""
    apply_async = kind.apply_async

    @functools.wraps(apply_async)
    def checked(self: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        if not isinstance(self.app, Service):
            return apply_async(self, args, kwargs, **options)
        if _is_at_hand(getattr(self.tasks, "tasks", self.tasks)):
            chosen = {**self.options, **options}.get("MessageGroupId")
            group = _checked(chosen) or _group_of_current_task()
            self.app.check_canvas([self], group, delay=_delay_in(options))
        with self.app.tracing.together(kind.__name__.lstrip("_")):
            return apply_async(self, args, kwargs, **options)

    kind.apply_async = checked


_check_first(canvas.group)
_check_first(canvas.chord)


def _delay_in(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("countdown", "eta") if options.get(name) is not None}


def _is_at_hand(tasks: object) -> bool:
    """Return whether tasks can be looked at before they are sent. Those of a generator are made one by one meanwhile.

    Celery's list of a generator is a `UserList`.
    """
    return isinstance(tasks, (list, tuple)) and not isinstance(tasks, UserList)


def _group_of_current_task() -> str | None:
    request = current_task.request if current_task else None
    properties = getattr(request, "properties", None) or {}
    group = properties.get("MessageGroupId")
    return str(group) if group else None


def _stated(task: type, attribute: str, args: Any, kwargs: Any) -> str | None:
    """Return what a task states about its messages: a text, or the result of a function of its arguments.

    Args:
        task: the class of the task; a function would be bound to an instance as a method.
        attribute: name of the attribute that states it.
        args: positional arguments of the message.
        kwargs: its keyword arguments.
    """
    stated = getattr(task, attribute, None)
    if callable(stated):
        stated = stated(*(args or ()), **(kwargs or {}))
    return None if stated is None else str(stated)


def _text_or_unknown(task: type, attribute: str) -> str | None:
    """Return what a task states about its messages; a valid text in place of a function.

    A function's arguments may be the results of tasks that have not run yet.
    """
    stated = getattr(task, attribute, None)
    return "unknown" if callable(stated) else stated


def _checked(group: object) -> str | None:
    """Return a valid message group.

    Raises:
        MessageGroupError: it is not 1 to 128 visible ASCII characters.
    """
    if group is None:
        return None
    text = str(group)
    if not is_identifier(text):
        raise errors.MessageGroupError(
            f"MessageGroupId must be 1 to {MAX_ID_CHARACTERS} ASCII letters, digits or punctuation marks, without "
            f"spaces; given: {text!r}"
        )
    return text


def route_by_module(
    app: Service[Any], name: str, args: Any = None, kwargs: Any = None, options: Any = None, **rest: Any
) -> dict[str, str] | None:
    """Route a task in `tasks/high.py` to the queue `high`; return None for the default queue.

    Raises:
        UnknownQueueError: no module and no route assigns the task, and the contract refuses such tasks.
    """
    if options and options.get("queue"):
        return None  # The producer has chosen a queue.
    queue = app.queue_of_task(name)
    if queue is not None:
        return {"queue": app.contract.celery_name(queue)}
    if app.contract.refuse_unrouted_tasks and not name.startswith("celery."):
        raise errors.UnknownQueueError(
            f"{name} was not sent: it is in no queue's module, and no pattern of `routes` in contract.json matches it. "
            f"Add a route, or name the queue: task.apply_async(..., queue='{app.contract.queues[0].name}')."
        )
    return None
