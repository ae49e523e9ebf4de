"""What a contract holds, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "broker": ("sqs-standard", "sqs-fifo", "rabbitmq"),
        "results": ("s3", "dynamodb", "redis", "none"),
        "credentials": ("role", "keys"),
        "compute": ("ecs", "ec2"),
    }
)
"""Every choice and what it can be. An option's file or folder is named after it: `results/s3.py`."""

SQS_ALONE = ("heartbeat_seconds", "heartbeat_limit_seconds", "wait_time_seconds", "polling_interval_seconds")
"""Fields of a contract whose broker is SQS, and of no other: RabbitMQ is not polled, and hides nothing by a clock."""

LONGEST_ENVIRONMENT = "development"
"""The longest environment name; the names of AWS resources leave room for it."""

HAND_OVER_SECONDS = 60
"""What a delivery needs beside its task: a place in the worker before it, the delete after it."""

STOP_MARGIN_SECONDS = 10
"""What a worker needs after its soft shutdown to give back what it holds and exit."""

MISSED_HEARTBEATS = 3
"""Heartbeats in one visibility timeout: the last of them may come late, or fail and be made again."""

MONTH_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Queue:
    """One queue and the workers that serve it; every number here is this queue's alone."""

    name: str
    """Short name, most urgent first in the contract; its tasks live in `tasks/<name>.py`."""
    soft_limit_seconds: int
    """A running task is told to finish (`SoftTimeLimitExceeded`) after this long."""
    hard_limit_seconds: int
    """A running task is killed after this long."""
    max_countdown_seconds: int
    """The longest countdown or ETA a sender may ask for."""
    visibility_timeout_seconds: int
    """How long a received message is its worker's before the broker delivers it again; RabbitMQ's consumer timeout."""
    heartbeat_seconds: int = 0
    """How often a worker starts the visibility timeout of what it holds anew; 0 for never."""
    heartbeat_limit_seconds: int = 0
    """How long a worker that does so keeps one message hidden, at the most."""
    retry_backoff_seconds: float
    """How long a failed task stays hidden at first; doubles with each delivery."""
    max_receive_count: int
    """Deliveries of one message before it goes to the dead-letter queue."""
    retention_seconds: int
    """How long the broker keeps a message nobody deletes: SQS from its sending on, RabbitMQ each time it waits."""
    concurrency: int
    """Tasks one worker runs side by side, each in a process of its own."""
    workers_min: int
    """Workers that run when there is nothing to do."""
    workers_max: int
    """Workers that run at the most."""
    acceptable_latency_seconds: int
    """How long a message may wait; scaling and the age alarm follow from it."""
    seconds_per_task: float
    """What one task takes on average; scaling, and how many a worker takes at a time, follow from it."""

    @property
    def module(self) -> str:
        """Name of the module in `tasks/` that holds this queue's tasks."""
        return self.name.replace("-", "_")

    @property
    def hidden_seconds(self) -> int:
        """How long a message stays hidden from other workers while its worker lives."""
        return self.heartbeat_limit_seconds if self.heartbeat_seconds else self.visibility_timeout_seconds

    @property
    def prefetch_multiplier(self) -> int:
        """Messages a worker takes for each task it runs side by side.

        One, so that none waits in one worker while another is idle. Where tasks are so short that
        asking for each would take longer than doing it, as many as are done in a second.
        """
        return max(1, min(10, int(1 / self.seconds_per_task)))

    @property
    def seconds_to_dead_letter(self) -> int:
        """Time from the first failure of a task that always fails to its dead-letter queue, at the most.

        A task whose worker dies each time takes the visibility timeout each time instead.
        """
        seconds: float = 0
        for delivery in range(self.max_receive_count - 1):
            seconds += min(self.visibility_timeout_seconds, self.retry_backoff_seconds * 2**delivery)
        return math.ceil(seconds)


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The whole contract; see `contract.json` for the values and docs/timeouts.md for the why."""

    project_name: str
    """The name for people."""
    description: str
    """What the service does, in one line."""
    service: str
    """The name for machines: the command, and the first part of every AWS resource's name."""
    package: str
    """The Python package."""
    region: str
    """AWS region of everything."""
    broker: str
    """One of `CHOICES["broker"]`."""
    results: str
    """One of `CHOICES["results"]`."""
    credentials: str
    """One of `CHOICES["credentials"]`."""
    compute: str
    """One of `CHOICES["compute"]`."""
    queues: tuple[Queue, ...]
    """Most urgent first."""
    dead_letter_retention_seconds: int
    """How long a dead-letter queue keeps a message: on SQS counted from its first sending."""
    result_expires_seconds: int
    """How long a task's result can be read."""
    wait_time_seconds: int = 0
    """Length of a long poll; an idle worker asks SQS once in this time."""
    polling_interval_seconds: float = 0
    """Pause of a worker between two polls that brought nothing."""
    max_message_bytes: int
    """The largest message; a larger one is refused when it is sent."""
    soft_shutdown_seconds: int
    """How long a worker that is told to stop lets its tasks run on."""
    stop_timeout_seconds: int
    """When the machine kills a worker that was told to stop."""
    alarm_email: str
    """Who gets the alarms; may be empty."""

    def queue(self, name: str) -> Queue:
        """Return the queue of that short name.

        Raises:
            KeyError: there is none; the message lists those there are.
        """
        for queue in self.queues:
            if queue.name == name:
                return queue
        known = ", ".join(queue.name for queue in self.queues)
        raise KeyError(f"no queue {name!r} in contract.json; there are: {known}")

    @property
    def default_queue(self) -> Queue:
        """The queue of tasks that live in no queue's module: `default`, or else the first one."""
        return next((q for q in self.queues if q.name == "default"), self.queues[0])

    @property
    def is_fifo(self) -> bool:
        """Whether its queues are FIFO queues of SQS."""
        return self.broker == "sqs-fifo"

    @property
    def suffix(self) -> str:
        """What the name of every queue ends with; AWS and kombu both want it on FIFO queues."""
        return ".fifo" if self.is_fifo else ""

    def celery_name(self, queue: Queue) -> str:
        """Name of the queue inside Celery, the same in every environment."""
        return queue.name + self.suffix

    def short_name(self, task: str) -> str:
        """Name of a task as commands take it, `high.send_invoice`; a task from outside the package keeps its name."""
        return task.removeprefix(f"{self.package}.tasks.").removeprefix(f"{self.package}.")

    def messages_per_poll(self, queue: Queue) -> int:
        """How many messages a worker must have room for to ask SQS for more: a request costs money and time."""
        if self.is_fifo:
            return 1  # More could be of one group, and would not stay in order.
        return max(1, min(10, queue.concurrency * (queue.prefetch_multiplier - 1)))

    def queue_name(self, queue: Queue, environment: str) -> str:
        """Name of the queue at the broker: RabbitMQ is each environment's own, SQS is the account's."""
        return queue.name if self.broker == "rabbitmq" else f"{self.service}-{environment}-{queue.name}{self.suffix}"

    def dead_letter_queue_name(self, queue: Queue, environment: str) -> str:
        """Name of the queue's dead-letter queue at the broker."""
        return f"{self.queue_name(queue, environment).removesuffix(self.suffix)}-dlq{self.suffix}"

    @property
    def idle_requests_per_month(self) -> int:
        """Requests that the least number of workers sends to SQS in 30 days without a message; none to RabbitMQ."""
        cycle_seconds = self.wait_time_seconds + self.polling_interval_seconds or math.inf
        workers = sum(queue.workers_min for queue in self.queues)
        return round(workers * MONTH_SECONDS / cycle_seconds)
