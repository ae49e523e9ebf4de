"""The service's contract: read it, check it, derive from it.

`contract.json` is the one place for names, numbers and choices. This module is the one place for
the rules between them. The service reads both when it starts, the tests and the emulator read
them, and the template this project came from runs this very file to refuse wrong answers, which
is why it needs nothing but the standard library.
"""

from __future__ import annotations

import json
import keyword
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "broker": ("sqs-standard", "sqs-fifo", "rabbitmq"),
        "results": ("s3", "dynamodb", "redis", "none"),
        "credentials": ("role", "keys"),
        "compute": ("ecs", "ec2"),
    }
)
"""Every choice and what it can be. An option's file is named after it: `results.s3.py`."""

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

_SQS_QUOTAS = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html"
_SQS_QUEUE_QUOTAS = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html"
_SQS_VISIBILITY = (
    "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html"
)
_SQS_DLQ = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html"
_SQS_DLQ_RETENTION = (
    "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/"
    "setting-up-dead-letter-queue-retention.html"
)
_SQS_LONG_POLL = (
    "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html"
)
_CELERY_LIMITS = "https://docs.celeryq.dev/en/stable/userguide/workers.html#time-limits"
_NATIVE_DELAY = (
    "https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html#native-delayed-delivery"
)
_NO_QUEUE_METRICS = "https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-4.html"
_CONSUMER_TIMEOUT = "https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout"
_CELERY_ETA = "https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/sqs.html#caveats"
_CELERY_SHUTDOWN = "https://docs.celeryq.dev/en/stable/userguide/workers.html#soft-shutdown"
_ECS_STOP = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html"


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
    def suffix(self) -> str:
        """What the name of every queue ends with; AWS and kombu both want it on FIFO queues."""
        return ".fifo" if self.broker == "sqs-fifo" else ""

    def celery_name(self, queue: Queue) -> str:
        """Name of the queue inside Celery, the same in every environment."""
        return queue.name + self.suffix

    def messages_per_poll(self, queue: Queue) -> int:
        """How many messages a worker must have room for to ask SQS for more: a request costs money and time."""
        if self.broker == "sqs-fifo":
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


@dataclass(frozen=True)
class Problem:
    """One broken rule."""

    field: str
    """Key in the contract."""
    value: object
    """What stands there."""
    rule: str
    """What must hold, with the values it was compared to."""
    suggestion: object
    """A value, or a few words, that would do."""
    queue: str = ""
    """The queue it is about; empty when it is about the whole service."""
    source: str = ""
    """Where AWS or Celery sets the limit."""

    def __str__(self) -> str:
        where = f"queue {self.queue}: " if self.queue else ""
        given = json.dumps(self.value, ensure_ascii=True, default=str)
        if len(given) > 60:
            given = given[:57] + "..."
        lines = [f"{where}{self.field} {self.rule}", f"    given: {given}"]
        if self.suggestion != "":
            lines.append(f"    try:   {self.suggestion}")
        if self.source:
            lines.append(f"    why:   {self.source}")
        return "\n".join(lines)


class ContractError(ValueError):
    """The contract breaks rules; `problems` holds every one of them."""

    def __init__(self, origin: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 rule" if len(problems) == 1 else f"{len(problems)} rules"
        listed = "\n".join(f"  {problem}".replace("\n", "\n  ") for problem in problems)
        super().__init__(f"{origin} breaks {count}:\n{listed}")


Values = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """One relation between the contract's values."""

    field: str
    """The value to change when it does not hold."""
    says: str
    """What must hold; other fields are called by their names."""
    holds: Callable[[Values], bool]
    suggest: Callable[[Values], object]
    source: str = ""
    advice: bool = False
    """Whether breaking it is allowed, and only worth a word."""
    broker: str = ""
    """The family of brokers it is for, where not for all."""

    def is_for(self, broker: object) -> bool:
        """Return whether it is for contracts with that broker."""
        return not self.broker or str(broker).split("-")[0] == self.broker

    def explained(self, values: Values) -> str:
        """What the rule says, with the values of the other fields it names."""
        return re.sub(
            r"[a-z]+(?:_[a-z]+)+",
            lambda name: f"{name[0]} ({values[name[0]]})" if name[0] in values and name[0] != self.field else name[0],
            self.says,
        )


def _between(field: str, low: float, high: float, source: str = "", broker: str = "") -> Rule:
    return Rule(
        field,
        f"must be between {low} and {high}",
        lambda v: bool(low <= v[field] <= high),
        lambda v: low if v[field] < low else high,
        source,
        broker=broker,
    )


def _one_of(field: str) -> Rule:
    return Rule(
        field,
        f"must be one of {', '.join(CHOICES[field])}",
        lambda v: v[field] in CHOICES[field],
        lambda _: CHOICES[field][0],
    )


def _plain_text(field: str, longest: int) -> Rule:
    return Rule(
        field,
        f"must be 1 to {longest} printable characters, and no brace may begin template syntax",
        lambda v: (
            0 < len(v[field].strip()) <= longest and v[field].isprintable() and not re.search(r"{[%#{]", v[field])
        ),
        lambda v: re.sub(r"{[%#{]|[^\x20-\x7e]", "", v[field]).strip()[:longest] or "a plain line of text",
    )


_NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
_EMAIL = r"[A-Za-z0-9.!#$%&*+/=?^_|~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"
_LONGEST_SERVICE_NAME = 28
# Beside the standard library that runs this: what dependencies bring as modules and commands, what is
# Python's own, what only some Pythons have in their standard library, the project's top-level folders.
_TAKEN_NAMES = """
amqp annotated_types ast_serialize async_timeout backports billiard blinker boto3 botocore celery certifi cffi
cffi_gen_src charset_normalizer click click_didyoumean click_plugins click_repl colorama cryptography curl
dateutil dmypy docker dotenv exceptiongroup fakeredis flask flask_cors flower hatchling honcho humanize idna
iniconfig itsdangerous jinja2 jmespath kombu librt lupa markdown_it markupsafe mdurl moto moto_proxy moto_server
mypy mypy_extensions mypyc normalizer packaging pathspec pexpect pluggy prometheus_client prompt_toolkit
ptyprocess py py_partiql_parser pycparser pycurl pydantic pydantic_core pydantic_settings pygmentize pygments
pytest pytest_timeout pythonjsonlogger pytz redis requests responses rich ruff s3transfer six sortedcontainers
stubgen stubtest tomli tomlkit tornado trove_classifiers typing_extensions typing_inspection tzdata tzlocal
urllib3 uv uvx vine wcwidth werkzeug xmltodict yaml yaml_stubs

activate pip pkg_resources python python3 setuptools sitecustomize test usercustomize wheel

aifc asynchat asyncore audioop binhex cgi cgitb chunk crypt distutils imghdr imp lib2to3 mailcap msilib nis nntplib
ossaudiodev pipes smtpd sndhdr spwd sunau telnetlib tomllib uu xdrlib zoneinfo

celery_aws chassis docs src terraform tests
"""


def _importable(name: str) -> bool:
    return not (
        keyword.iskeyword(name)
        or keyword.issoftkeyword(name)
        or name in sys.stdlib_module_names
        or name in _TAKEN_NAMES.split()
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-0123456789")


def _dead_letter_name_length(v: Values) -> int:
    suffix = ".fifo" if v["broker"] == "sqs-fifo" else ""
    return len(f"{v['service']}-{LONGEST_ENVIRONMENT}-{v['name']}-dlq{suffix}")


# Ordered so that each rule only builds on fields whose rules stand above it: whoever follows every
# suggestion at once ends with a contract that holds.
SERVICE_RULES: tuple[Rule, ...] = (
    _plain_text("project_name", 60),
    _plain_text("description", 200),
    Rule(
        "service",
        "must be lower-case letters, digits and single hyphens, beginning with a letter",
        lambda v: re.fullmatch(_NAME, v["service"], re.ASCII) is not None,
        lambda v: _slug(v["service"])[:_LONGEST_SERVICE_NAME].strip("-") or "acme-jobs",
    ),
    Rule(
        "service",
        f"must be at most {_LONGEST_SERVICE_NAME} characters, so that the names made of it fit AWS's limits",
        lambda v: len(v["service"]) <= _LONGEST_SERVICE_NAME,
        lambda v: v["service"][:_LONGEST_SERVICE_NAME].strip("-"),
        "https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html",
    ),
    Rule(
        "service",
        "must not make a package that Python, the standard library or a dependency already has",
        lambda v: _importable(v["service"].replace("-", "_")),
        lambda v: f"{v['service']}-jobs"[-_LONGEST_SERVICE_NAME:],
    ),
    Rule(
        "package",
        "must be the service's name with underscores for hyphens",
        lambda v: v["package"] == v["service"].replace("-", "_"),
        lambda v: v["service"].replace("-", "_"),
    ),
    Rule(
        "region",
        "must look like an AWS region",
        lambda v: re.fullmatch(r"[a-z]{2,4}(-[a-z]{2,10}){1,2}-[0-9]", v["region"], re.ASCII) is not None,
        lambda _: "eu-west-1",
        "https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-regions.html",
    ),
    *(_one_of(choice) for choice in CHOICES),
    Rule(
        "credentials",
        "should be role where neither broker nor results are asked for in AWS's own way: keys would open nothing",
        lambda v: v["credentials"] == "role" or v["broker"] != "rabbitmq" or v["results"] in ("s3", "dynamodb"),
        lambda _: "role",
        advice=True,
    ),
    _between("dead_letter_retention_seconds", 60, 1_209_600, _SQS_QUOTAS),
    _between("result_expires_seconds", 60, 365 * 86_400),
    _between("wait_time_seconds", 0, 20, _SQS_LONG_POLL, "sqs"),
    _between("polling_interval_seconds", 0.01, 1, broker="sqs"),
    _between("max_message_bytes", 1_024, 1_048_576, _SQS_QUOTAS),
    _between("soft_shutdown_seconds", 1, 7_200, _CELERY_SHUTDOWN),
    Rule(
        "soft_shutdown_seconds",
        f"must leave room on ecs, which kills after 120 seconds, for {STOP_MARGIN_SECONDS} seconds to clean up",
        lambda v: v["compute"] != "ecs" or v["soft_shutdown_seconds"] + STOP_MARGIN_SECONDS <= 120,
        lambda _: 120 - STOP_MARGIN_SECONDS,
        _ECS_STOP,
    ),
    _between("stop_timeout_seconds", 2, 7_210, _ECS_STOP),
    Rule(
        "stop_timeout_seconds",
        "must be at most 120 on ecs",
        lambda v: v["compute"] != "ecs" or v["stop_timeout_seconds"] <= 120,
        lambda _: 120,
        _ECS_STOP,
    ),
    Rule(
        "stop_timeout_seconds",
        f"must be at least soft_shutdown_seconds + {STOP_MARGIN_SECONDS}",
        lambda v: v["soft_shutdown_seconds"] + STOP_MARGIN_SECONDS <= v["stop_timeout_seconds"],
        lambda v: v["soft_shutdown_seconds"] + STOP_MARGIN_SECONDS,
        _CELERY_SHUTDOWN,
    ),
    Rule(
        "alarm_email",
        "must be empty or one e-mail address",
        lambda v: (
            not v["alarm_email"]
            or (len(v["alarm_email"]) <= 254 and re.fullmatch(_EMAIL, v["alarm_email"], re.ASCII) is not None)
        ),
        lambda _: "on-call@example.com",
    ),
)

_MAX_VISIBILITY = 43_200
_MAX_NATIVE_DELAY = 2**28 - 1
_MAX_RETENTION = 1_209_600

QUEUE_RULES: tuple[Rule, ...] = (
    Rule(
        "name",
        "must be lower-case letters, digits and single hyphens, beginning with a letter",
        lambda v: re.fullmatch(_NAME, v["name"], re.ASCII) is not None,
        lambda v: _slug(v["name"]) or "default",
    ),
    Rule(
        "name",
        "must not be a Python keyword, nor end with -dlq, which dead-letter queues do",
        lambda v: not keyword.iskeyword(v["name"].replace("-", "_")) and not v["name"].endswith("-dlq"),
        lambda v: f"{v['name'].removesuffix('-dlq')}-tasks",
    ),
    Rule(
        "name",
        f"must keep the dead-letter queue's full name, in the environment {LONGEST_ENVIRONMENT}, within 80 characters",
        lambda v: _dead_letter_name_length(v) <= 80,
        lambda v: v["name"][: 80 - _dead_letter_name_length(v)].strip("-") or "a shorter name",
        _SQS_QUEUE_QUOTAS,
    ),
    _between("soft_limit_seconds", 1, 43_080, _CELERY_LIMITS),
    _between("hard_limit_seconds", 1, _MAX_VISIBILITY - HAND_OVER_SECONDS, _CELERY_LIMITS),
    Rule(
        "hard_limit_seconds",
        "must be greater than soft_limit_seconds",
        lambda v: v["hard_limit_seconds"] > v["soft_limit_seconds"],
        lambda v: v["soft_limit_seconds"] + 60,
        _CELERY_LIMITS,
    ),
    Rule(
        "max_countdown_seconds",
        "must not be negative",
        lambda v: v["max_countdown_seconds"] >= 0,
        lambda _: 0,
    ),
    Rule(
        "max_countdown_seconds",
        f"plus hard_limit_seconds plus {HAND_OVER_SECONDS} must fit the longest visibility timeout, {_MAX_VISIBILITY}",
        lambda v: v["max_countdown_seconds"] + v["hard_limit_seconds"] + HAND_OVER_SECONDS <= _MAX_VISIBILITY,
        lambda v: _MAX_VISIBILITY - HAND_OVER_SECONDS - v["hard_limit_seconds"],
        _CELERY_ETA,
        broker="sqs",
    ),
    Rule(
        "max_countdown_seconds",
        f"must be at most {_MAX_NATIVE_DELAY}, the longest that Celery's delayed delivery can do",
        lambda v: v["max_countdown_seconds"] <= _MAX_NATIVE_DELAY,
        lambda _: _MAX_NATIVE_DELAY,
        _NATIVE_DELAY,
        broker="rabbitmq",
    ),
    _between("heartbeat_seconds", 0, _MAX_VISIBILITY // MISSED_HEARTBEATS, _SQS_VISIBILITY, "sqs"),
    _between("heartbeat_limit_seconds", 1, _MAX_VISIBILITY, _SQS_VISIBILITY, "sqs"),
    Rule(
        "heartbeat_limit_seconds",
        f"must be at least max_countdown_seconds + hard_limit_seconds + {HAND_OVER_SECONDS}, or tasks run twice",
        lambda v: (
            not v["heartbeat_seconds"]
            or v["max_countdown_seconds"] + v["hard_limit_seconds"] + HAND_OVER_SECONDS <= v["heartbeat_limit_seconds"]
        ),
        lambda _: _MAX_VISIBILITY,
        _SQS_VISIBILITY,
        broker="sqs",
    ),
    Rule(
        "visibility_timeout_seconds",
        f"must be at least {MISSED_HEARTBEATS} times heartbeat_seconds, so that one that fails does no harm",
        lambda v: v["visibility_timeout_seconds"] >= MISSED_HEARTBEATS * v["heartbeat_seconds"],
        lambda v: MISSED_HEARTBEATS * v["heartbeat_seconds"],
        _SQS_VISIBILITY,
        broker="sqs",
    ),
    Rule(
        "visibility_timeout_seconds",
        f"must be at least max_countdown_seconds + hard_limit_seconds + {HAND_OVER_SECONDS}, or tasks run twice",
        lambda v: (
            v["heartbeat_seconds"] > 0
            or v["max_countdown_seconds"] + v["hard_limit_seconds"] + HAND_OVER_SECONDS
            <= v["visibility_timeout_seconds"]
        ),
        lambda v: v["max_countdown_seconds"] + v["hard_limit_seconds"] + HAND_OVER_SECONDS,
        _SQS_VISIBILITY,
        broker="sqs",
    ),
    Rule(
        "visibility_timeout_seconds",
        f"must be at least hard_limit_seconds + {HAND_OVER_SECONDS}, or tasks are taken back while they run",
        lambda v: v["hard_limit_seconds"] + HAND_OVER_SECONDS <= v["visibility_timeout_seconds"],
        lambda v: v["hard_limit_seconds"] + HAND_OVER_SECONDS,
        _CONSUMER_TIMEOUT,
        broker="rabbitmq",
    ),
    Rule(
        "visibility_timeout_seconds",
        f"must be at most {_MAX_VISIBILITY}",
        lambda v: v["visibility_timeout_seconds"] <= _MAX_VISIBILITY,
        lambda _: _MAX_VISIBILITY,
        _SQS_VISIBILITY,
    ),
    _between("retry_backoff_seconds", 0.1, _MAX_VISIBILITY, _SQS_VISIBILITY),
    _between("max_receive_count", 1, 1_000, _SQS_DLQ),
    Rule(
        "max_receive_count",
        "should be 3 or more: one stopped worker already costs a delivery",
        lambda v: v["max_receive_count"] >= 3,
        lambda _: 5,
        _SQS_DLQ,
        advice=True,
    ),
    Rule(
        "max_receive_count",
        f"times visibility_timeout_seconds must be less than the longest retention, {_MAX_RETENTION}",
        lambda v: v["max_receive_count"] * v["visibility_timeout_seconds"] < _MAX_RETENTION,
        lambda v: (_MAX_RETENTION - 1) // v["visibility_timeout_seconds"],
        _SQS_DLQ_RETENTION,
        broker="sqs",
    ),
    _between("retention_seconds", 60, _MAX_RETENTION, _SQS_QUOTAS),
    Rule(
        "retention_seconds",
        "must be more than visibility_timeout_seconds times max_receive_count, or messages expire on their way",
        lambda v: v["visibility_timeout_seconds"] * v["max_receive_count"] < v["retention_seconds"],
        lambda v: min(_MAX_RETENTION, v["visibility_timeout_seconds"] * v["max_receive_count"] + 86_400),
        _SQS_DLQ_RETENTION,
        broker="sqs",
    ),
    Rule(
        "retention_seconds",
        f"must be less than dead_letter_retention_seconds, unless both are {_MAX_RETENTION}: a message keeps its age",
        lambda v: (
            v["retention_seconds"] < v["dead_letter_retention_seconds"]
            or v["retention_seconds"] == v["dead_letter_retention_seconds"] == _MAX_RETENTION
        ),
        lambda _: f"a dead_letter_retention_seconds of {_MAX_RETENTION}",
        _SQS_DLQ_RETENTION,
        broker="sqs",
    ),
    _between("concurrency", 1, 1_000),
    _between("workers_min", 0, 5_000, broker="sqs"),
    _between("workers_min", 1, 5_000, _NO_QUEUE_METRICS, "rabbitmq"),
    _between("workers_max", 1, 5_000),
    Rule(
        "workers_max",
        "must be at least workers_min",
        lambda v: v["workers_min"] <= v["workers_max"],
        lambda v: v["workers_min"],
    ),
    Rule(
        "workers_max",
        "times concurrency must be at most 120000, the messages SQS lets be in flight",
        lambda v: v["workers_max"] * v["concurrency"] <= 120_000,
        lambda v: 120_000 // v["concurrency"],
        _SQS_QUEUE_QUOTAS,
        broker="sqs",
    ),
    _between("acceptable_latency_seconds", 1, 86_400),
    _between("seconds_per_task", 0.001, _MAX_VISIBILITY),
)

MAX_QUEUES = 20
_KINDS = {"str": (str,), "int": (int,), "float": (int, float)}
_KIND_NAMES = {"str": "text", "int": "a whole number", "float": "a number"}
_INSTEAD = {"str": "text in quotes", "int": "digits only, such as 60", "float": "digits, such as 0.5"}


def read(path: Path) -> Contract:
    """Read and check a contract.

    Raises:
        ContractError: it is no JSON object or breaks rules; all of them are listed.
        OSError: it cannot be read.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        problem = Problem("contract", str(error), "must be JSON in UTF-8", "an editor that shows JSON errors")
        raise ContractError(str(path), [problem]) from None
    if found := problems(data):
        raise ContractError(str(path), found)
    return parse(data)


def parse(data: Mapping[str, Any]) -> Contract:
    """Give a contract that holds its types."""
    return Contract(**{**data, "queues": tuple(Queue(**queue) for queue in data["queues"])})


def problems(data: object) -> list[Problem]:
    """Return every broken rule of a contract as it was read from JSON; none means it holds."""
    return [problem for problem, advice in _findings(data) if not advice]


def advice(data: object) -> list[Problem]:
    """Return what is allowed but seldom wise."""
    return [problem for problem, advice in _findings(data) if advice]


def _findings(data: object) -> Iterator[tuple[Problem, bool]]:
    if not isinstance(data, dict):
        yield Problem("contract", data, "must be a JSON object", "the contract.json of a new project"), False
        return
    service: dict[str, Any] = {}
    absent = SQS_ALONE if data.get("broker") == "rabbitmq" else ()
    yield from _shape(data, Contract, absent, service)
    yield from _broken(SERVICE_RULES, service)
    queues = data.get("queues")
    if not isinstance(queues, list) or not 1 <= len(queues) <= MAX_QUEUES:
        count = len(queues) if isinstance(queues, list) else queues
        yield Problem("queues", count, f"must list 1 to {MAX_QUEUES} queues", "high, default, low"), False
    if not isinstance(queues, list):
        return
    names: set[object] = set()
    for index, queue in enumerate(queues):
        if not isinstance(queue, dict):
            yield Problem("queues", queue, "must be JSON objects", "a copy of another queue"), False
            continue
        name = queue.get("name")
        label = name if isinstance(name, str) and name else f"number {index + 1}"
        values: dict[str, Any] = {}
        yield from _shape(queue, Queue, absent, values, label)
        if isinstance(name, str) and name in names:
            yield Problem("name", name, "must be unique", "each queue once", label), False
        names.add(str(name))
        yield from _broken(QUEUE_RULES, {**service, **values}, label)


def _shape(
    data: Mapping[str, Any],
    shape: type[Contract] | type[Queue],
    absent: Sequence[str],
    fitting: dict[str, Any],
    queue: str = "",
) -> Iterator[tuple[Problem, bool]]:
    """Yield what is missing, unknown, of another broker or of the wrong kind; put the rest into `fitting`."""
    kinds = {field.name: str(field.type) for field in fields(shape) if field.name not in absent}
    for name in (name for name in data if name not in kinds):
        known = "one of " + ", ".join(kinds)
        yield Problem(str(name), data[name], "is not part of the contract", known, queue), False
    for name, kind in kinds.items():
        if name not in data:
            yield Problem(name, None, "is missing", _INSTEAD.get(kind, ""), queue), False
        elif kind in _KINDS:
            value = data[name]
            # JSON's true is no 1, and NaN compares false with everything.
            fits = isinstance(value, _KINDS[kind]) and not isinstance(value, bool)
            if fits and (kind == "str" or -math.inf < value < math.inf):
                fitting[name] = value
            else:
                yield Problem(name, value, f"must be {_KIND_NAMES[kind]}", _INSTEAD[kind], queue), False


def _broken(rules: Sequence[Rule], values: Mapping[str, Any], queue: str = "") -> Iterator[tuple[Problem, bool]]:
    """Yield the rules that do not hold, going on as if each suggestion had been followed."""
    given, values = values, dict(values)
    for rule in rules:
        if not rule.is_for(values.get("broker")):
            continue
        try:
            if rule.holds(values):
                continue
            suggestion = rule.suggest(values)
            explained = rule.explained(values)
        except KeyError:  # A field it needs is missing or no number, which is reported already.
            continue
        value = values[rule.field]
        yield Problem(rule.field, given[rule.field], explained, suggestion, queue, rule.source), rule.advice
        if isinstance(suggestion, type(value)) and not rule.advice:
            values[rule.field] = suggestion
