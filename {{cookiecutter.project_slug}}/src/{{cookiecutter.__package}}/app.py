"""The Celery application: every setting stands beside the reason for it.

A `#name` behind a reason is the place in
https://docs.celeryq.dev/en/stable/userguide/configuration.html that documents the setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from celery import Celery, current_task
from celery.result import AsyncResult
from celery.utils import uuid
from celery.utils.time import maybe_iso8601, maybe_make_aware

from . import settings as environment
from .broker import celery_broker
from .contract import Contract, read
from .ordering import SQS_DELAY_SECONDS, message_properties
from .results import celery_results


class MessageGroupError(ValueError):
    """A message group is not what SQS takes for one."""


class CountdownTooLongError(ValueError):
    """A task was sent with a countdown or ETA during which its message would be delivered again."""


class Service(Celery):
    """A Celery application whose messages carry their message group, and wait where they may."""

    longest_countdowns: Mapping[str, float] = MappingProxyType({})
    """The longest countdown in seconds, by the name of the queue."""

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
            MessageGroupError: SQS would not take the message group.
            ValueError: the queue needs one.
        """
        task_id = options["task_id"] = options.get("task_id") or uuid()
        group = options.pop("MessageGroupId", None) or _group_of_current_task()
        # Not the sender's: SQS would drop the new message as a repetition.
        options.pop("MessageDeduplicationId", None)
        attempt = f"{options.get('retries') or 0}:{options.get('replaced_task_nesting') or 0}"
        delay_seconds = self._checked_delay(name, args, kwargs, options)
        options.update(message_properties(name, task_id, attempt, _checked(group), delay_seconds))
        return super().send_task(name, args, kwargs, *positional, **options)

    def _checked_delay(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> float:
        """Return in how many seconds a task is due; refuse what its visibility timeout does not cover."""
        countdown, eta = options.get("countdown"), options.get("eta")
        if countdown is None:
            due = maybe_iso8601(eta)
            if due is None:
                return 0
            countdown = (maybe_make_aware(due) - self.now()).total_seconds()
        queue = self.amqp.router.route(dict(options), name, args, kwargs)["queue"].name
        longest = max(SQS_DELAY_SECONDS, self.longest_countdowns.get(queue, 0))
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
    """Refuse what SQS would refuse.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    """
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
    app = Service(contract.package)
    app.longest_countdowns = {contract.celery_name(queue): queue.max_countdown_seconds for queue in contract.queues}
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
        # Take no more than there are free slots: what waits inside a worker has its visibility
        # timeout running, and no other worker can have it. #worker-prefetch-multiplier
        worker_prefetch_multiplier=1,
        # SQS has no broadcast, so remote control, events and their queues cannot work on it; asked
        # all the same, kombu would try to create queues.
        # #worker-enable-remote-control #worker-send-task-events #task-send-sent-event
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        task_send_sent_event=False,
        # Told to stop, a worker lets tasks run on this long, well within what ECS or systemd allow.
        # #worker-soft-shutdown-timeout
        worker_soft_shutdown_timeout=contract.soft_shutdown_seconds,
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
    return app


contract = read()
app = create_app(contract, environment.read())
