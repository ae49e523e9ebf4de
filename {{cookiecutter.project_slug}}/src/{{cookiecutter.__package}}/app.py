"""The Celery application: every setting stands beside the reason for it.

A `#name` behind a reason is the place in
https://docs.celeryq.dev/en/stable/userguide/configuration.html that documents the setting.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from celery import Celery, current_task
from celery.result import AsyncResult
from celery.utils import uuid
from celery.utils.time import maybe_iso8601, maybe_make_aware

from . import logs
from . import settings as environment
from .broker import celery_broker
from .contract import Contract, Queue, read
from .liveness import Liveness
from .ordering import BROKER_DELAY_SECONDS, message_properties
from .protection import PROTECTION_STEPS
from .reporting import BROKER_STEPS
from .results import celery_results


class MessageGroupError(ValueError):
    """A message group is not 1 to 128 visible characters of ASCII."""


class CountdownTooLongError(ValueError):
    """A task was sent with a countdown or ETA during which its message would be delivered again."""


class Service(Celery):
    """A Celery application whose messages carry what they need, wait where they may, and go out in batches if told."""

    contract: Contract
    environment: str
    task_cls = f"{__package__}.delivery:Task"

    def __init__(self, contract: Contract, environment: str) -> None:
        super().__init__(contract.package)
        self.contract = contract
        self.environment = environment
        self._served = {contract.celery_name(queue): queue for queue in contract.queues}
        self._gathering = threading.local()

    def queue_served(self, celery_name: str) -> Queue:
        """Return the contract's queue of that name inside Celery.

        Raises:
            KeyError: there is none.
        """
        return self._served[celery_name]

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
            CountdownTooLongError: it should wait longer than the contract allows.
            MessageGroupError: the message group is not one.
            ValueError: the queue needs one, or the message is too large.
        """
        task_id = options["task_id"] = options.get("task_id") or uuid()
        group = _checked(options.pop("MessageGroupId", None) or _group_of_current_task())
        if name == "celery.chord_unlock":
            # It waits until a chord's tasks are done: in the chord's group it would hold them up.
            # What comes after them, which it sends, belongs there.
            if group:
                args[1]["options"].setdefault("MessageGroupId", group)
            group = None
        # Not the sender's: the broker would drop the new message as a repetition.
        options.pop("MessageDeduplicationId", None)
        attempt = f"{options.get('retries') or 0}:{options.get('replaced_task_nesting') or 0}"
        delay_seconds = self._checked_delay(name, args, kwargs, options)
        options.update(message_properties(name, task_id, attempt, group, delay_seconds))
        request_id = logs.current_request_id()
        if request_id:
            options["headers"] = {**(options.get("headers") or {}), "request_id": request_id}
        return super().send_task(name, args, kwargs, *positional, **options)

    @contextlib.contextmanager
    def batching(self) -> Iterator[None]:
        """Gather everything this thread sends in the `with` block, and send it in few requests at its end.

        If the block raises, nothing is sent.

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

    def _checked_delay(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> float:
        """Return in how many seconds a task is due; refuse what is longer than the contract allows."""
        countdown, eta = options.get("countdown"), options.get("eta")
        if countdown is None:
            due = maybe_iso8601(eta)
            if due is None:
                return 0
            countdown = (maybe_make_aware(due) - self.now()).total_seconds()
        queue = self.amqp.router.route(dict(options), name, args, kwargs)["queue"].name
        allowed = self._served[queue].max_countdown_seconds if queue in self._served else 0
        longest = max(BROKER_DELAY_SECONDS, allowed)
        if countdown > longest and not name.startswith("celery."):
            raise CountdownTooLongError(
                f"{name} was sent to be run in {countdown:.0f} seconds, and {queue} allows {longest}: its "
                f"message would be delivered again meanwhile. Raise max_countdown_seconds (and with it "
                f"visibility_timeout_seconds) in contract.json, or keep the time in a database and send when it is due."
            )
        return float(countdown)


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
        raise MessageGroupError(
            f"MessageGroupId must be 1 to 128 letters, digits or punctuation marks of ASCII, "
            f"without spaces; given: {text!r}"
        )
    return text


def route_by_module(
    contract: Contract, name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **rest: Any
) -> dict[str, str] | None:
    """Send a task in `tasks/high.py` to the queue `high`; leave others to the default queue."""
    for queue in contract.queues:
        if name.startswith(f"{contract.package}.tasks.{queue.module}."):
            return {"queue": contract.celery_name(queue)}
    return None


def create_app(contract: Contract, settings: environment.Settings) -> Service:
    """Build the application of one environment."""
    app = Service(contract, settings.environment)
    app.steps["consumer"].add(Liveness)
    app.conf.update(celery_broker(contract, settings))
    app.conf.update(celery_results(contract, settings))
    app.conf.update(
        # A worker, or whoever sends by name, knows the tasks of every queue. #include
        include=[f"{contract.package}.tasks.{queue.module}" for queue in contract.queues],
        # The module a task is in says which queue it goes to. #task-routes
        task_routes=(lambda *args, **kwargs: route_by_module(contract, *args, **kwargs),),
        # JSON only: pickle would let whoever may send a message run code in the workers.
        # #accept-content
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        # Times in messages and logs mean the same everywhere. #enable-utc
        enable_utc=True,
        timezone="UTC",
        # Delete a message after its task instead of before it, so that a killed worker loses none.
        # #task-acks-late
        task_acks_late=True,
        # The same where only the process of the task dies, of too much memory for example.
        # #task-reject-on-worker-lost
        task_reject_on_worker_lost=True,
        # A task that raises or runs out of time stays in the queue, is delivered again, and goes to
        # the dead-letter queue in the end. By default Celery deletes it, and that queue stays empty.
        # #task-acks-on-failure #task-acks-on-timeout
        task_acks_on_failure=False,
        task_acks_on_timeout=False,
        # A message whose body cannot be read stays as well; Celery's own consumer deletes it.
        # #worker-consumer
        worker_consumer=f"{contract.package}.delivery:Consumer",
        # A process that leaks memory is replaced in time, between two tasks.
        # #worker-max-tasks-per-child
        worker_max_tasks_per_child=1_000,
        # Sending fails after about a second instead of being tried for ever in a web request.
        # #task-publish-retry-policy
        task_publish_retry_policy={
            "max_retries": 3,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
    )
    app.steps["consumer"].update((*PROTECTION_STEPS, *BROKER_STEPS))
    return app


contract = read()
app = create_app(contract, environment.read())
