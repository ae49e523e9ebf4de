"""The fields of a contract, and values derived from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, TypeVar

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

EXISTING = ("queue_name", "dead_letter_queue_name", "account", "managed")
"""Fields that describe a queue which was there before the service."""

SQS_ALONE = (
    "fifo",
    *EXISTING,
    "heartbeat_seconds",
    "heartbeat_limit_seconds",
    "wait_time_seconds",
    "polling_interval_seconds",
    "long_delays",
    "remote_control",
    "flexible_window_minutes",
)
"""Fields that only contracts with SQS have: RabbitMQ has no polling and no visibility timeout to extend."""

TIMES = ("cron", "rate_minutes", "at")
"""The fields of a schedule of which each schedule has one."""

OPTIONAL = (
    *("fifo", *EXISTING, "routes", "refuse_unrouted_tasks", "long_delays", "schedules"),
    *("remote_control", "task_metrics", "tracing"),
    *("queue", "args", "kwargs", *TIMES, "timezone", "group", "enabled", "flexible_window_minutes"),
)
"""Fields that a contract, a queue or a schedule need not have."""

SIZES: Mapping[str, tuple[str, ...]] = MappingProxyType({"ecs": ("cpu_units", "memory_mib"), "ec2": ("instance_type",)})
"""Fields of a worker that only contracts with that compute have."""

BEAT = "Beat"
"""Name of the beat beside the workers, here and in AWS; names of workers are lower-case."""

ENVIRONMENT_IN_NAMES = "{environment}"
"""Stands for the environment in the name of a queue."""

LONGEST_ENVIRONMENT = "development"
"""The longest environment name for which names of AWS resources have room."""

HAND_OVER_SECONDS = 60
"""Time that a delivery needs beside its task: waiting for a free process, and deleting the message."""

STOP_MARGIN_SECONDS = 10
"""Time that a worker needs after its soft shutdown to release its messages and exit."""

DEPLOYMENT_MARGIN_SECONDS = 1_800
"""Time for what a deployment does beside waiting for old workers: start new ones, and notice that they run."""

MISSED_HEARTBEATS = 3
"""Heartbeats per visibility timeout, so that one may be late or fail."""

CONTROL_POLL_SECONDS = 2
"""Interval at which a worker polls the table of `remote_control`."""

MONTH_SECONDS = 30 * 24 * 3600


def module_of(queue: str) -> str:
    """Return the name of the module in `tasks/` with the tasks of a queue, by the queue's name."""
    return queue.replace("-", "_")


def queue_of_module(task: str, package: str, queues: Iterable[str]) -> str | None:
    """Return the name of the queue whose module has a task; None if there is none.

    Args:
        task: `<module>.<function>`, or the full name of the task.
        package: the service's package.
        queues: the names of its queues.
    """
    within = task.removeprefix(f"{package}.tasks.")
    return next((queue for queue in queues if within.startswith(f"{module_of(queue)}.")), None)


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What delivery means in one queue."""

    name: str
    """Short name; its tasks are in `tasks/<name>.py`."""
    fifo: bool = False
    """Whether it is an SQS FIFO queue; by default all queues are if the broker is `sqs-fifo`."""
    queue_name: str = ""
    """Name at SQS, in which `{environment}` stands for the environment; by default `<service>-<environment>-<name>`."""
    dead_letter_queue_name: str = ""
    """Name of the dead-letter queue at SQS; by default the name of the queue with `-dlq`."""
    account: str = ""
    """AWS account of both queues, if it is not the service's own."""
    managed: bool = True
    """Whether Terraform creates and configures both queues; the service only uses one that is not managed."""
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
    acceptable_latency_seconds: int
    """How long a message may wait; scaling and the age alarm use it."""
    seconds_per_task: float
    """Average run time of a task; scaling and prefetching use it."""

    @property
    def module(self) -> str:
        """Name of the module in `tasks/` with this queue's tasks."""
        return module_of(self.name)

    @property
    def suffix(self) -> str:
        """Suffix of its name; AWS requires `.fifo` for FIFO queues."""
        return ".fifo" if self.fifo else ""

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
class Worker:
    """What serves one or more queues: as many equal workers as the load requires."""

    name: str
    """Name of the worker, for `worker <name>`, and of its service or Auto Scaling group."""
    queues: tuple[str, ...]
    """The queues that it serves, most urgent first."""
    concurrency: int
    """Tasks that one worker runs in parallel, each in its own process."""
    min: int
    """Minimum number of workers."""
    max: int
    """Maximum number of workers."""
    tasks_per_child: int
    """Tasks after which a task process is replaced, before a memory leak matters."""
    cpu_units: int = 0
    """CPU units of one worker on ECS; 1024 are one vCPU."""
    memory_mib: int = 0
    """Memory of one worker on ECS, in MiB; it runs one process more than its concurrency."""
    instance_type: str = ""
    """Type of the EC2 instance of one worker."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A task that is sent at some times. It has one of `cron`, `rate_minutes` and `at`."""

    name: str
    """Name of the schedule."""
    task: str
    """The task: `<module>.<function>` for one in `tasks/`, or its full name."""
    queue: str = ""
    """Queue of the contract; by default the one whose module has the task."""
    args: tuple[Any, ...] = ()
    """Positional arguments; `{scheduled_time}` in a text stands for the time in UTC at which the task is due."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments, with the same placeholder."""
    cron: str = ""
    """Minute, hour, day of the month, month and day of the week, as in crontab: `30 6 * * mon-fri`."""
    rate_minutes: int = 0
    """Minutes between two times; EventBridge Scheduler counts from when the schedule was created."""
    at: str = ""
    """One date and time, such as `2027-01-31T06:30:00`."""
    timezone: str = "UTC"
    """Time zone of `cron` and `at`, such as `Europe/Berlin`."""
    group: str = ""
    """Message group, which FIFO queues require."""
    enabled: bool = True
    """Whether the task is sent."""
    flexible_window_minutes: int = 0
    """Time within which EventBridge Scheduler may send the task, to spread the load; 0 for at once."""


class UnknownNameError(KeyError):
    """The contract has no queue, worker or schedule of a name."""

    def __str__(self) -> str:
        return str(self.args[0])


NamedT = TypeVar("NamedT", Queue, Schedule)


def _named(kind: str, name: str, items: Sequence[NamedT]) -> NamedT:
    """Return the item of a name.

    Raises:
        UnknownNameError: there is none; the message lists all names.
    """
    for item in items:
        if item.name == name:
            return item
    known = ", ".join(item.name for item in items) or "none"
    raise UnknownNameError(f"no {kind} {name!r} in contract.json; {kind}s: {known}")


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
    """Most urgent first; each has the values of `queue_defaults` that it does not state itself."""
    routes: Mapping[str, str] = field(default_factory=dict)
    """Queues of tasks outside the queues' modules, by patterns of task names such as `reports.*`; the first counts."""
    refuse_unrouted_tasks: bool = False
    """Whether a task that no module and no route assigns is refused when sent, instead of going to `default_queue`."""
    workers: tuple[Worker, ...]
    """Those of the contract, and one for each queue that none of them serves."""
    schedules: tuple[Schedule, ...] = ()
    """Tasks that are sent periodically, or at one time."""
    long_delays: bool = False
    """Whether a longer countdown than a queue allows becomes a one-time schedule of EventBridge Scheduler."""
    remote_control: bool = False
    """Whether workers can be inspected and controlled, and queues paused, through a DynamoDB table."""
    task_metrics: bool = False
    """Whether CloudWatch has metrics of each task, and alarms on the failures and the duration of a queue's tasks."""
    tracing: bool = False
    """Whether the service makes traces with OpenTelemetry, which the extra `tracing` installs."""
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
            UnknownNameError: there is no such queue; the message lists all queues.
        """
        return _named("queue", name, self.queues)

    def worker(self, name: str) -> Worker:
        """Return a worker by its name.

        Raises:
            UnknownNameError: there is no such worker; the message says which one serves the queue of that name.
        """
        for worker in self.workers:
            if worker.name == name:
                return worker
        known = "; ".join(f"{worker.name} serves {', '.join(worker.queues)}" for worker in self.workers)
        raise UnknownNameError(f"no worker {name!r} in contract.json; workers: {known}")

    def worker_of(self, queue: Queue) -> Worker:
        """Return the worker that serves a queue."""
        return next(worker for worker in self.workers if queue.name in worker.queues)

    def queues_of(self, worker: Worker) -> tuple[Queue, ...]:
        """Return the queues of a worker, most urgent first."""
        return tuple(self.queue(name) for name in worker.queues)

    def prefetch_multiplier(self, worker: Worker) -> int:
        """Return how many messages a worker prefetches per process; see `Queue.prefetch_multiplier`."""
        return min(queue.prefetch_multiplier for queue in self.queues_of(worker))

    def route(self, task: str) -> Queue | None:
        """Return the queue that the first matching pattern of `routes` assigns to a task."""
        return next((self.queue(name) for pattern, name in self.routes.items() if fnmatchcase(task, pattern)), None)

    def schedule(self, name: str) -> Schedule:
        """Return a schedule by its name.

        Raises:
            UnknownNameError: there is no such schedule; the message lists all schedules.
        """
        return _named("schedule", name, self.schedules)

    def full_name(self, task: str) -> str:
        """Return the full name of a task that may be named `<module>.<function>`."""
        within = task.removeprefix(f"{self.package}.tasks.")
        return f"{self.package}.tasks.{within}" if self._queue_of_module(task) else task

    def _queue_of_module(self, task: str) -> str | None:
        return queue_of_module(task, self.package, [queue.name for queue in self.queues])

    def queue_of(self, schedule: Schedule) -> Queue:
        """Return the queue of a schedule: its own, or the one whose module has the task."""
        return self.queue(schedule.queue or self._queue_of_module(schedule.task) or "")

    @property
    def uses_scheduler(self) -> bool:
        """Whether EventBridge Scheduler sends messages of the service."""
        return self.broker != "rabbitmq" and (bool(self.schedules) or self.long_delays)

    def schedule_group_name(self, environment: str, *, delayed: bool = False) -> str:
        """Name of the schedule group at EventBridge Scheduler, or of that of delayed tasks."""
        return f"{self.service}-{environment}{'-delayed' if delayed else ''}"

    def control_table_name(self, environment: str) -> str:
        """Name of the DynamoDB table through which workers are controlled; see control_sqs.tf."""
        return f"{self.service}-{environment}-control"

    def log_group_name(self, environment: str) -> str:
        """Name of the log group of the workers in CloudWatch; see logs.tf."""
        return f"/{self.service}/{environment}/workers"

    def schedule_dead_letter_queue_name(self, environment: str) -> str:
        """Name of the queue of what EventBridge Scheduler could not send."""
        return f"{self.service}-{environment}-scheduler-dlq"

    @property
    def rollout_names(self) -> tuple[str, ...]:
        """Names of what runs the image in AWS: the workers, and on RabbitMQ with schedules the beat."""
        return (*(worker.name for worker in self.workers), *([BEAT] if self.has_beat else []))

    @property
    def has_beat(self) -> bool:
        """Whether a beat sends the tasks of the schedules in AWS; on SQS, EventBridge Scheduler does."""
        return self.broker == "rabbitmq" and bool(self.schedules)

    @property
    def default_queue(self) -> Queue:
        """The queue of tasks outside the queues' modules: `default`, or else the first queue."""
        return next((q for q in self.queues if q.name == "default"), self.queues[0])

    @property
    def option_names(self) -> frozenset[str]:
        """The words that names of files and folders of the chosen options contain."""
        return frozenset().union(*(names_of(getattr(self, choice)) for choice in CHOICES))

    def celery_name(self, queue: Queue) -> str:
        """Name of a queue in Celery, the same in every environment."""
        return queue.name + queue.suffix

    def short_name(self, task: str) -> str:
        """Name of a task as commands take it, `high.send_invoice`; a task from outside the package keeps its name."""
        return task.removeprefix(f"{self.package}.tasks.").removeprefix(f"{self.package}.")

    def messages_per_poll(self, queue: Queue) -> int:
        """How many messages a worker must have room for before it polls again; fewer polls cost less."""
        if queue.fifo:
            return 1  # Several messages could be of one group, and would run out of order.
        worker = self.worker_of(queue)
        return max(1, min(10, worker.concurrency * (self.prefetch_multiplier(worker) - 1)))

    def queue_name(self, queue: Queue, environment: str, *, dead: bool = False) -> str:
        """Name of a queue, or of its dead-letter queue, at the broker.

        Each environment has its own RabbitMQ; SQS is shared by an account.
        """
        if dead:
            return self.dead_letter_queue_name(queue, environment)
        if self.broker == "rabbitmq":
            return queue.name
        chosen = queue.queue_name.replace(ENVIRONMENT_IN_NAMES, environment)
        return chosen or f"{self.service}-{environment}-{queue.name}{queue.suffix}"

    def queue_url(self, queue: Queue, base: str, environment: str, *, dead: bool = False) -> str:
        """URL of a queue, or of its dead-letter queue, at SQS.

        Args:
            queue: the queue.
            base: prefix of the URLs of the service's own queues, which ends with their account. In an
                emulator, which is reached by http, the queues of all accounts are in that one.
            environment: name of the environment.
            dead: return the URL of the dead-letter queue.
        """
        if queue.account and base.startswith("https://"):
            base = f"{base.rpartition('/')[0]}/{queue.account}"
        return f"{base}/{self.queue_name(queue, environment, dead=dead)}"

    def dead_letter_queue_name(self, queue: Queue, environment: str) -> str:
        """Name of a queue's dead-letter queue at the broker."""
        chosen = queue.dead_letter_queue_name.replace(ENVIRONMENT_IN_NAMES, environment)
        return chosen or f"{self.queue_name(queue, environment).removesuffix(queue.suffix)}-dlq{queue.suffix}"

    @property
    def deployment_seconds(self) -> int:
        """How long a deployment may take; one that takes longer has failed.

        An old worker may have just started its longest task. On ECS, it is protected while that runs; see
        compute/ecs.py.
        """
        longest = max(queue.hard_limit_seconds for queue in self.queues)
        return longest + HAND_OVER_SECONDS + self.stop_timeout_seconds + DEPLOYMENT_MARGIN_SECONDS

    @property
    def idle_requests_per_month(self) -> int:
        """Polls of SQS in 30 days by the minimum number of workers if there are no messages; 0 on RabbitMQ."""
        cycle_seconds = self.wait_time_seconds + self.polling_interval_seconds or math.inf
        polls = sum(worker.min * len(worker.queues) for worker in self.workers)
        return round(polls * MONTH_SECONDS / cycle_seconds)
