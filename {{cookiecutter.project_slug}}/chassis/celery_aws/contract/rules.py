"""The rules for the values of a contract, with their sources."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .model import CHOICES, HAND_OVER_SECONDS, LONGEST_ENVIRONMENT, MISSED_HEARTBEATS, STOP_MARGIN_SECONDS

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

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """A rule for one field, which may depend on other fields."""

    field: str
    """The field to change if the rule is broken."""
    says: str
    """The rule in words; it refers to other fields by name."""
    holds: Callable[[Values], bool]
    suggest: Callable[[Values], object]
    source: str = ""
    """URL of the documentation that sets the limit."""
    advice: bool = False
    """Whether it is only a recommendation."""
    broker: str = ""
    """The broker that it applies to, `sqs` or `rabbitmq`; empty for all."""

    def is_for(self, broker: object) -> bool:
        """Return whether the rule applies to a broker."""
        return not self.broker or str(broker).split("-")[0] == self.broker

    def explained(self, values: Values) -> str:
        """Return the rule in words, with the values of the other fields."""
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
        f"must be 1 to {longest} printable characters without template syntax",
        lambda v: (
            0 < len(v[field].strip()) <= longest and v[field].isprintable() and not re.search(r"{[%#{]", v[field])
        ),
        lambda v: re.sub(r"{[%#{]|[^\x20-\x7e]", "", v[field]).strip()[:longest] or "a plain line of text",
    )


_NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
_EMAIL = r"[A-Za-z0-9.!#$%&*+/=?^_|~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"
LONGEST_SERVICE_NAME = 28


def _importable(name: str) -> bool:
    return not (keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in sys.stdlib_module_names)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-0123456789")


def _dead_letter_name_length(v: Values) -> int:
    suffix = ".fifo" if v["broker"] == "sqs-fifo" else ""
    return len(f"{v['service']}-{LONGEST_ENVIRONMENT}-{v['name']}-dlq{suffix}")


# Each rule refers only to fields whose rules precede it. So a contract is valid once all
# suggestions have been followed.
SERVICE_RULES: tuple[Rule, ...] = (
    _plain_text("project_name", 60),
    _plain_text("description", 200),
    Rule(
        "service",
        "must be lower-case letters, digits and single hyphens, and start with a letter",
        lambda v: re.fullmatch(_NAME, v["service"], re.ASCII) is not None,
        lambda v: _slug(v["service"])[:LONGEST_SERVICE_NAME].strip("-") or "acme-jobs",
    ),
    Rule(
        "service",
        f"must be at most {LONGEST_SERVICE_NAME} characters, to keep the names of resources within AWS's limits",
        lambda v: len(v["service"]) <= LONGEST_SERVICE_NAME,
        lambda v: v["service"][:LONGEST_SERVICE_NAME].strip("-"),
        "https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html",
    ),
    Rule(
        "service",
        "must not be a Python keyword or the name of a module of its standard library",
        lambda v: _importable(v["service"].replace("-", "_")),
        lambda v: f"{v['service']}-jobs"[-LONGEST_SERVICE_NAME:],
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
        "should be role if neither the broker nor the result backend uses IAM: access keys would be unused",
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
        f"must leave {STOP_MARGIN_SECONDS} seconds for the clean-up on ecs, which kills a worker after 120 seconds",
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
        "must be lower-case letters, digits and single hyphens, and start with a letter",
        lambda v: re.fullmatch(_NAME, v["name"], re.ASCII) is not None,
        lambda v: _slug(v["name"]) or "default",
    ),
    Rule(
        "name",
        "must not be a Python keyword, nor end with -dlq, the suffix of dead-letter queues",
        lambda v: not keyword.iskeyword(v["name"].replace("-", "_")) and not v["name"].endswith("-dlq"),
        lambda v: f"{v['name'].removesuffix('-dlq')}-tasks",
    ),
    Rule(
        "name",
        f"must keep the name of the dead-letter queue in the environment {LONGEST_ENVIRONMENT} within 80 characters",
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
        f"plus hard_limit_seconds plus {HAND_OVER_SECONDS} must be at most {_MAX_VISIBILITY}, SQS's longest timeout",
        lambda v: v["max_countdown_seconds"] + v["hard_limit_seconds"] + HAND_OVER_SECONDS <= _MAX_VISIBILITY,
        lambda v: _MAX_VISIBILITY - HAND_OVER_SECONDS - v["hard_limit_seconds"],
        _CELERY_ETA,
        broker="sqs",
    ),
    Rule(
        "max_countdown_seconds",
        f"must be at most {_MAX_NATIVE_DELAY}, the longest delay of Celery's native delayed delivery",
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
        f"must be at least {MISSED_HEARTBEATS} times heartbeat_seconds, so that one heartbeat may fail",
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
        f"must be at least hard_limit_seconds + {HAND_OVER_SECONDS}, or messages of running tasks are redelivered",
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
        "should be 3 or more: a worker that stops already uses one attempt",
        lambda v: v["max_receive_count"] >= 3,
        lambda _: 5,
        _SQS_DLQ,
        advice=True,
    ),
    Rule(
        "max_receive_count",
        f"times visibility_timeout_seconds must be less than {_MAX_RETENTION}, SQS's longest retention",
        lambda v: v["max_receive_count"] * v["visibility_timeout_seconds"] < _MAX_RETENTION,
        lambda v: (_MAX_RETENTION - 1) // v["visibility_timeout_seconds"],
        _SQS_DLQ_RETENTION,
        broker="sqs",
    ),
    _between("retention_seconds", 60, _MAX_RETENTION, _SQS_QUOTAS),
    Rule(
        "retention_seconds",
        "must be more than visibility_timeout_seconds times max_receive_count, or messages expire between attempts",
        lambda v: v["visibility_timeout_seconds"] * v["max_receive_count"] < v["retention_seconds"],
        lambda v: min(_MAX_RETENTION, v["visibility_timeout_seconds"] * v["max_receive_count"] + 86_400),
        _SQS_DLQ_RETENTION,
        broker="sqs",
    ),
    Rule(
        "retention_seconds",
        f"must be less than dead_letter_retention_seconds, unless both are {_MAX_RETENTION}: SQS counts from sending",
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
        "times concurrency must be at most 120000, SQS's limit of messages in flight",
        lambda v: v["workers_max"] * v["concurrency"] <= 120_000,
        lambda v: 120_000 // v["concurrency"],
        _SQS_QUEUE_QUOTAS,
        broker="sqs",
    ),
    _between("acceptable_latency_seconds", 1, 86_400),
    _between("seconds_per_task", 0.001, _MAX_VISIBILITY),
)
