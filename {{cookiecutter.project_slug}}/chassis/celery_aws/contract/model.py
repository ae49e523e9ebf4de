"""The fields of a contract, and values derived from them."""

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
"""The options of each choice. The file or folder of an option is named after it: `results/s3.py`."""


def names_of(option: str) -> frozenset[str]:
    """Return the words that names of files and folders of an option contain: `sqs-fifo` also uses those of `sqs`."""
    return frozenset((option, option.partition("-")[0]))


OPTION_NAMES = frozenset(name for options in CHOICES.values() for option in options for name in names_of(option))
"""Such words of all options."""

SQS_ALONE = ("heartbeat_seconds", "heartbeat_limit_seconds", "wait_time_seconds", "polling_interval_seconds")
"""Fields that only contracts with SQS have: RabbitMQ has no polling and no visibility timeout to extend."""

LONGEST_ENVIRONMENT = "development"
"""The longest environment name for which names of AWS resources have room."""

HAND_OVER_SECONDS = 60
"""Time that a delivery needs beside its task: waiting for a free process, and deleting the message."""

STOP_MARGIN_SECONDS = 10
"""Time that a worker needs after its soft shutdown to release its messages and exit."""

MISSED_HEARTBEATS = 3
"""Heartbeats per visibility timeout, so that one may be late or fail."""

MONTH_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Queue:
    """One queue and the workers that serve it."""

    name: str
    """Short name; its tasks are in `tasks/<name>.py`."""
    soft_limit_seconds: int
    """Run time after which `SoftTimeLimitExceeded` is raised in a task."""
    hard_limit_seconds: int
    """Run time after which a task is killed."""
    max_countdown_seconds: int
    """Longest countdown or ETA that a producer may request."""
    visibility_timeout_seconds: int
    """Time after which the broker redelivers a message; on RabbitMQ, the consumer timeout."""
    heartbeat_seconds: int = 0
    """Interval at which a worker extends the visibility timeout of its messages; 0 for never."""
    heartbeat_limit_seconds: int = 0
    """Maximum time for which a worker extends the visibility timeout of one message."""
    retry_backoff_seconds: float
    """Backoff after the first failed attempt; doubles with each attempt."""
    max_receive_count: int
    """Attempts before a message is dead-lettered."""
    retention_seconds: int
    """Time after which the broker deletes a message; SQS counts from sending, RabbitMQ from each enqueueing."""
    concurrency: int
    """Tasks that one worker runs in parallel, each in its own process."""
    workers_min: int
    """Minimum number of workers."""
    workers_max: int
    """Maximum number of workers."""
    acceptable_latency_seconds: int
    """How long a message may wait; scaling and the age alarm use it."""
    seconds_per_task: float
    """Average run time of a task; scaling and prefetching use it."""

    @property
    def module(self) -> str:
        """Name of the module in `tasks/` with this queue's tasks."""
        return self.name.replace("-", "_")

    @property
    def hold_seconds(self) -> int:
        """How long a message stays invisible to other workers while its worker is alive."""
        return self.heartbeat_limit_seconds if self.heartbeat_seconds else self.visibility_timeout_seconds

    @property
    def prefetch_multiplier(self) -> int:
        """Messages that a worker prefetches per process: 1 to 10.

        One, so that no message waits in one worker while another is idle. If tasks take less than a
        second, as many as run in a second, because receiving them one by one would take longer.
        """
        return max(1, min(10, int(1 / self.seconds_per_task)))

    @property
    def seconds_to_dead_letter(self) -> int:
        """Maximum time between the first failure of a task that always fails and its dead-lettering.

        If the worker dies in each attempt, every attempt takes the visibility timeout instead.
        """
        seconds: float = 0
        for delivery in range(self.max_receive_count - 1):
            seconds += min(self.visibility_timeout_seconds, self.retry_backoff_seconds * 2**delivery)
        return math.ceil(seconds)


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The contract of a service; docs/timeouts.md explains the values."""

    project_name: str
    """Display name."""
    description: str
    """One line."""
    service: str
    """Name of the command, and prefix of the names of AWS resources."""
    package: str
    """The Python package."""
    region: str
    """AWS region of all resources."""
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
    """How long a dead-letter queue keeps a message; SQS counts from when it was first sent."""
    result_expires_seconds: int
    """How long a result is kept."""
    wait_time_seconds: int = 0
    """Duration of a long poll of SQS."""
    polling_interval_seconds: float = 0
    """Delay after a poll that returned no messages."""
    max_message_bytes: int
    """Maximum size of a message; a larger one is refused when it is sent."""
    soft_shutdown_seconds: int
    """How long running tasks may continue after a worker received SIGTERM."""
    stop_timeout_seconds: int
    """Time between SIGTERM and SIGKILL when ECS or systemd stops a worker."""
    alarm_email: str
    """Recipient of alarms; may be empty."""

    def queue(self, name: str) -> Queue:
        """Return a queue by its short name.

        Raises:
            KeyError: there is no such queue; the message lists all queues.
        """
        for queue in self.queues:
            if queue.name == name:
                return queue
        known = ", ".join(queue.name for queue in self.queues)
        raise KeyError(f"no queue {name!r} in contract.json; queues: {known}")

    @property
    def default_queue(self) -> Queue:
        """The queue of tasks outside the queues' modules: `default`, or else the first queue."""
        return next((q for q in self.queues if q.name == "default"), self.queues[0])

    @property
    def option_names(self) -> frozenset[str]:
        """The words that names of files and folders of the chosen options contain."""
        return frozenset().union(*(names_of(getattr(self, choice)) for choice in CHOICES))

    @property
    def is_fifo(self) -> bool:
        """Whether the queues are SQS FIFO queues."""
        return self.broker == "sqs-fifo"

    @property
    def suffix(self) -> str:
        """Suffix of queue names; AWS requires `.fifo` for FIFO queues."""
        return ".fifo" if self.is_fifo else ""

    def celery_name(self, queue: Queue) -> str:
        """Name of a queue in Celery, the same in every environment."""
        return queue.name + self.suffix

    def short_name(self, task: str) -> str:
        """Name of a task as commands take it, `high.send_invoice`; a task from outside the package keeps its name."""
        return task.removeprefix(f"{self.package}.tasks.").removeprefix(f"{self.package}.")

    def messages_per_poll(self, queue: Queue) -> int:
        """How many messages a worker must have room for before it polls again; fewer polls cost less."""
        if self.is_fifo:
            return 1  # Several messages could be of one group, and would run out of order.
        return max(1, min(10, queue.concurrency * (queue.prefetch_multiplier - 1)))

    def queue_name(self, queue: Queue, environment: str) -> str:
        """Name of a queue at the broker. Each environment has its own RabbitMQ; SQS is shared by an account."""
        return queue.name if self.broker == "rabbitmq" else f"{self.service}-{environment}-{queue.name}{self.suffix}"

    def dead_letter_queue_name(self, queue: Queue, environment: str) -> str:
        """Name of a queue's dead-letter queue at the broker."""
        return f"{self.queue_name(queue, environment).removesuffix(self.suffix)}-dlq{self.suffix}"

    @property
    def idle_requests_per_month(self) -> int:
        """Polls of SQS in 30 days by the minimum number of workers if there are no messages; 0 on RabbitMQ."""
        cycle_seconds = self.wait_time_seconds + self.polling_interval_seconds or math.inf
        workers = sum(queue.workers_min for queue in self.queues)
        return round(workers * MONTH_SECONDS / cycle_seconds)
