"""The rules for the values of a contract, with their sources."""

from __future__ import annotations

import json
import keyword
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .model import (
    CHOICES,
    ENVIRONMENT_IN_NAMES,
    HAND_OVER_SECONDS,
    LONGEST_ENVIRONMENT,
    MISSED_HEARTBEATS,
    STOP_MARGIN_SECONDS,
    TIMES,
)
from .schedules import MAX_EXPRESSION_CHARACTERS, fits_scheduler, is_cron, is_date, is_zone

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
_CELERY_CHILD = "https://docs.celeryq.dev/en/stable/userguide/workers.html#max-tasks-per-child-setting"
_FARGATE_SIZES = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html"
_EC2_TYPES = "https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html"
_SCHEDULER_API = "https://docs.aws.amazon.com/scheduler/latest/APIReference/API_CreateSchedule.html"
_SCHEDULER_QUOTAS = "https://docs.aws.amazon.com/scheduler/latest/UserGuide/scheduler-quotas.html"
_SCHEDULE_TYPES = "https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html"
_SQS_SEND = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html"
_EC2_HOOK = "https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_PutLifecycleHook.html"
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


_COVER_OTHER_TASKS = (
    "must also cover other_tasks_seconds, for which a message may wait in its worker behind other queues' tasks"
)


def _held_seconds(v: Values) -> int:
    """Return how long a worker may hold a message at SQS, from receiving it until its task has ended."""
    return int(v["max_countdown_seconds"] + v["other_tasks_seconds"] + v["hard_limit_seconds"] + HAND_OVER_SECONDS)


def _longest_countdown(v: Values) -> int:
    """Return the longest countdown that SQS's longest visibility timeout covers."""
    return max(0, _MAX_VISIBILITY - HAND_OVER_SECONDS - int(v["hard_limit_seconds"] + v["other_tasks_seconds"]))


NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
PHYSICAL_NAME = r"([A-Za-z0-9_-]|\{environment\})+(\.fifo)?"
ACCOUNT = r"[0-9]{12}"
INSTANCE_TYPE = r"[a-z][a-z0-9-]{1,20}\.[a-z0-9-]{2,20}"
REGION = r"[a-z]{2,4}(-[a-z]{2,10}){1,2}-[0-9]"
_EMAIL = r"[A-Za-z0-9.!#$%&*+/=?^_|~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"
LONGEST_SERVICE_NAME = 28
LONGEST_STOP_SECONDS = 7_200 - 30
"""Longest stop timeout: an EC2 lifecycle hook lasts 7,200 s at most, and 30 s longer than the worker takes.

https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_PutLifecycleHook.html
"""
MAX_NAME_CHARACTERS = 80
"""Longest name of a queue at SQS.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html
"""


def _importable(name: str) -> bool:
    return not (keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in sys.stdlib_module_names)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-0123456789")


def _lower_case(field: str, otherwise: str, longest: int | None = None) -> Rule:
    """Return the rule for the name of the service, a queue or a worker.

    Args:
        field: the field.
        otherwise: the suggestion if nothing of a name can be kept.
        longest: maximum length of a suggestion in characters.
    """
    return Rule(
        field,
        "must be lower-case letters, digits and single hyphens, and start with a letter",
        lambda v: re.fullmatch(NAME, v[field], re.ASCII) is not None,
        lambda v: _slug(v[field])[:longest].strip("-") or otherwise,
    )


def _name_length(longest: int, source: str = "") -> Rule:
    """Return the rule for the length of a name, in characters."""
    return Rule(
        "name",
        f"must be at most {longest} characters",
        lambda v: len(v["name"]) <= longest,
        lambda v: v["name"][:longest].strip("-"),
        source,
    )


def longest_name_characters(name: str) -> int:
    """Return the length in characters of a queue's name at SQS, in the environment with the longest name."""
    return len(name.replace(ENVIRONMENT_IN_NAMES, LONGEST_ENVIRONMENT))


def _physical_name(field: str) -> tuple[Rule, ...]:
    """Return the rules for the name of an existing queue at SQS."""
    return (
        Rule(
            field,
            f"must be letters, digits, hyphens and underscores, with {ENVIRONMENT_IN_NAMES} for the environment",
            lambda v: re.fullmatch(PHYSICAL_NAME, v[field], re.ASCII) is not None,
            lambda v: re.sub(r"[^A-Za-z0-9_-]+", "-", v[field]).strip("-") or "orders",
            _SQS_QUEUE_QUOTAS,
            broker="sqs",
        ),
        Rule(
            field,
            "must end with .fifo if the queue is FIFO, and must not otherwise",
            lambda v: v[field].endswith(".fifo") == v["fifo"],
            lambda v: v[field].removesuffix(".fifo") + (".fifo" if v["fifo"] else ""),
            _SQS_QUEUE_QUOTAS,
            broker="sqs",
        ),
        Rule(
            field,
            f"must be at most {MAX_NAME_CHARACTERS} characters in the environment {LONGEST_ENVIRONMENT}",
            lambda v: longest_name_characters(v[field]) <= MAX_NAME_CHARACTERS,
            lambda v: v[field][:40].partition("{")[0] or "orders",
            _SQS_QUEUE_QUOTAS,
            broker="sqs",
        ),
    )


def _dead_letter_name_length(v: Values) -> int:
    suffix = ".fifo" if v["fifo"] else ""
    return len(f"{v['service']}-{LONGEST_ENVIRONMENT}-{v['name']}-dlq{suffix}")


# Each rule refers only to fields whose rules precede it. So a contract is valid once all
# suggestions have been followed.
SERVICE_RULES: tuple[Rule, ...] = (
    _plain_text("project_name", 60),
    _plain_text("description", 200),
    _lower_case("service", "acme-jobs", LONGEST_SERVICE_NAME),
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
        lambda v: re.fullmatch(REGION, v["region"], re.ASCII) is not None,
        lambda _: "eu-west-1",
        "https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-regions.html",
    ),
    # VPC endpoints, prices and the console have other names there, and nothing has been tried.
    Rule(
        "region",
        "must not be in China, which this version does not support",
        lambda v: not v["region"].startswith("cn-"),
        lambda _: "ap-east-1",
        "https://docs.aws.amazon.com/en_us/aws/latest/userguide/endpoints-Beijing.html",
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
    _between("soft_shutdown_seconds", 1, LONGEST_STOP_SECONDS - STOP_MARGIN_SECONDS, _EC2_HOOK),
    Rule(
        "soft_shutdown_seconds",
        f"must leave {STOP_MARGIN_SECONDS} seconds for the clean-up on ecs, which kills a worker after 120 seconds",
        lambda v: v["compute"] != "ecs" or v["soft_shutdown_seconds"] + STOP_MARGIN_SECONDS <= 120,
        lambda _: 120 - STOP_MARGIN_SECONDS,
        _ECS_STOP,
    ),
    _between("stop_timeout_seconds", 2, LONGEST_STOP_SECONDS, _EC2_HOOK),
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
    Rule(
        "alarm_email",
        "should be an address: alarms notify nobody unless alarm_actions in terraform/ names a receiver",
        lambda v: bool(v["alarm_email"]),
        lambda _: "on-call@example.com",
        advice=True,
    ),
)

_MAX_VISIBILITY = 43_200
_MAX_NATIVE_DELAY = 2**28 - 1
_MAX_RETENTION = 1_209_600

QUEUE_RULES: tuple[Rule, ...] = (
    _lower_case("name", "default"),
    Rule(
        "name",
        "must not be a Python keyword, nor end with -dlq, the suffix of dead-letter queues",
        lambda v: not keyword.iskeyword(v["name"].replace("-", "_")) and not v["name"].endswith("-dlq"),
        lambda v: f"{v['name'].removesuffix('-dlq')}-tasks",
    ),
    Rule(
        "name",
        f"must keep the name of the dead-letter queue in the environment {LONGEST_ENVIRONMENT} within "
        f"{MAX_NAME_CHARACTERS} characters",
        lambda v: _dead_letter_name_length(v) <= MAX_NAME_CHARACTERS,
        lambda v: v["name"][: MAX_NAME_CHARACTERS - _dead_letter_name_length(v)].strip("-") or "a shorter name",
        _SQS_QUEUE_QUOTAS,
    ),
    *_physical_name("queue_name"),
    *_physical_name("dead_letter_queue_name"),
    Rule(
        "dead_letter_queue_name",
        "must not be queue_name",
        lambda v: v["dead_letter_queue_name"] != v["queue_name"],
        lambda v: f"{v['queue_name'].removesuffix('.fifo')}-dlq{'.fifo' if v['fifo'] else ''}",
        _SQS_DLQ,
        broker="sqs",
    ),
    Rule(
        "account",
        "must be the 12 digits of an AWS account",
        lambda v: re.fullmatch(ACCOUNT, v["account"], re.ASCII) is not None,
        lambda _: "123456789012",
        broker="sqs",
    ),
    Rule(
        "managed",
        "must be false for queues of another account, which Terraform cannot create here",
        lambda v: not v["managed"] or not v.get("account"),
        lambda _: False,
        broker="sqs",
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
        _longest_countdown,
        _CELERY_ETA,
        broker="sqs",
    ),
    Rule(
        "max_countdown_seconds",
        f"plus hard_limit_seconds plus other_tasks_seconds plus {HAND_OVER_SECONDS} must be at most {_MAX_VISIBILITY}, "
        f"SQS's longest timeout",
        lambda v: not v["other_tasks_seconds"] or _held_seconds(v) <= _MAX_VISIBILITY or not _longest_countdown(v),
        _longest_countdown,
        _SQS_VISIBILITY,
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
        "heartbeat_limit_seconds",
        _COVER_OTHER_TASKS,
        lambda v: not v["heartbeat_seconds"] or _held_seconds(v) <= v["heartbeat_limit_seconds"],
        lambda _: _MAX_VISIBILITY,
        _SQS_VISIBILITY,
        broker="sqs",
    ),
    Rule(
        "visibility_timeout_seconds",
        _COVER_OTHER_TASKS,
        lambda v: v["heartbeat_seconds"] > 0 or _held_seconds(v) <= v["visibility_timeout_seconds"],
        _held_seconds,
        _SQS_VISIBILITY,
        broker="sqs",
    ),
    Rule(
        "visibility_timeout_seconds",
        _COVER_OTHER_TASKS,
        lambda v: (
            v["hard_limit_seconds"] + v["other_tasks_seconds"] + HAND_OVER_SECONDS <= v["visibility_timeout_seconds"]
        ),
        lambda v: v["hard_limit_seconds"] + v["other_tasks_seconds"] + HAND_OVER_SECONDS,
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
    _between("acceptable_latency_seconds", 1, 86_400),
    _between("seconds_per_task", 0.001, _MAX_VISIBILITY),
    Rule(
        "hard_limit_seconds",
        "should be at most twice soft_limit_seconds, or 60: a task that ignores that keeps its slot until then",
        lambda v: v["hard_limit_seconds"] <= 2 * v["soft_limit_seconds"] or v["hard_limit_seconds"] <= 60,
        lambda v: f"a soft_limit_seconds of {v['hard_limit_seconds'] - 60}",
        _CELERY_LIMITS,
        advice=True,
    ),
    Rule(
        "seconds_per_task",
        "should be at most soft_limit_seconds: longer tasks are interrupted",
        lambda v: v["seconds_per_task"] <= v["soft_limit_seconds"],
        lambda v: v["soft_limit_seconds"] / 2,
        _CELERY_LIMITS,
        advice=True,
    ),
    Rule(
        "retry_backoff_seconds",
        "should be less than visibility_timeout_seconds, to which every backoff is cut",
        lambda v: v["retry_backoff_seconds"] < v["visibility_timeout_seconds"],
        lambda _: 10,
        _SQS_VISIBILITY,
        advice=True,
    ),
)

FARGATE: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {
        256: (512, 1024, 2048),
        512: (*range(1024, 4096 + 1, 1024),),
        1024: (*range(2048, 8192 + 1, 1024),),
        2048: (*range(4096, 16384 + 1, 1024),),
        4096: (*range(8192, 30720 + 1, 1024),),
        8192: (*range(16384, 61440 + 1, 4096),),
        16384: (*range(32768, 122880 + 1, 8192),),
    }
)
"""What Fargate offers: memory in MiB, by CPU units."""

WORKER_RULES: tuple[Rule, ...] = (
    _lower_case("name", "default"),
    _name_length(63),
    _between("concurrency", 1, 1_000),
    _between("min", 0, 5_000, broker="sqs"),
    _between("min", 1, 5_000, _NO_QUEUE_METRICS, "rabbitmq"),
    _between("max", 1, 5_000),
    Rule(
        "max",
        "must be at least min",
        lambda v: v["min"] <= v["max"],
        lambda v: v["min"],
    ),
    Rule(
        "max",
        "times concurrency must be at most 120000, SQS's limit of messages in flight",
        lambda v: v["max"] * v["concurrency"] <= 120_000,
        lambda v: 120_000 // v["concurrency"],
        _SQS_QUEUE_QUOTAS,
        broker="sqs",
    ),
    _between("tasks_per_child", 1, 1_000_000, _CELERY_CHILD),
    Rule(
        "cpu_units",
        f"must be one of {', '.join(map(str, FARGATE))}, which Fargate offers",
        lambda v: v["cpu_units"] in FARGATE,
        lambda _: 512,
        _FARGATE_SIZES,
    ),
    Rule(
        "memory_mib",
        "must be memory that Fargate offers with cpu_units: 2 to 8 times as much, 7.5 times from 4096 on, "
        "in steps of 1024; of 4096 with 8192, and of 8192 with 16384",
        lambda v: v["memory_mib"] in FARGATE[v["cpu_units"]],
        lambda v: 2 * v["cpu_units"],
        _FARGATE_SIZES,
    ),
    Rule(
        "instance_type",
        "must be a type of EC2 instance",
        lambda v: re.fullmatch(INSTANCE_TYPE, v["instance_type"], re.ASCII) is not None,
        lambda _: "t4g.small",
        _EC2_TYPES,
    ),
    Rule(
        "min",
        "should be 1 if a queue may wait for less than 300 seconds: scaling from zero takes minutes",
        lambda v: v["min"] > 0 or v["shortest_latency_seconds"] >= 300,
        lambda _: 1,
        advice=True,
    ),
)

MAX_SCHEDULE_BYTES = 262_144
"""Largest input of a target of EventBridge Scheduler.

https://docs.aws.amazon.com/scheduler/latest/UserGuide/scheduler-quotas.html
"""
ENVELOPE_BYTES = 4_096
"""Room for what a message has beside its arguments."""


def _argument_bytes(v: Values) -> int:
    """Return the size of a schedule's arguments in a message, which is JSON in JSON in JSON, as Terraform writes it.

    https://developer.hashicorp.com/terraform/language/functions/jsonencode
    """
    text = json.dumps([v["args"], v["kwargs"]])
    escaped = text.translate({ord(character): f"\\u{ord(character):04x}" for character in "<>&"})
    return len(json.dumps(json.dumps(escaped)))


def _longest_argument_bytes(v: Values) -> int:
    longest: int = v["max_message_bytes"]
    return (min(longest, MAX_SCHEDULE_BYTES) if v["broker"] != "rabbitmq" else longest) - ENVELOPE_BYTES


SCHEDULE_RULES: tuple[Rule, ...] = (
    _lower_case("name", "nightly-report"),
    _name_length(64, _SCHEDULER_API),
    Rule(
        "task",
        "must be the name of a task, of 1 to 255 printable ASCII characters without spaces",
        lambda v: re.fullmatch(r"[!-~]{1,255}", v["task"], re.ASCII) is not None,
        lambda _: "default.send_report",
    ),
    Rule(
        "args",
        "must be a list",
        lambda v: isinstance(v["args"], list),
        lambda v: [v["args"]],
    ),
    Rule(
        "kwargs",
        "must be an object",
        lambda v: isinstance(v["kwargs"], dict),
        lambda _: {},
    ),
    Rule(
        "args",
        "must have, with kwargs, a size that leaves room in max_message_bytes and in the 256 KiB of a schedule",
        lambda v: _argument_bytes(v) <= _longest_argument_bytes(v),
        lambda _: "a reference to the data",
        _SCHEDULER_QUOTAS,
    ),
    Rule(
        "cron",
        "must be minute, hour, day of the month, month and day of the week, separated by single spaces; one of the two "
        "days must be *",
        lambda v: not v["cron"] or is_cron(v["cron"]),
        lambda _: "30 6 * * mon-fri",
        _SCHEDULE_TYPES,
    ),
    Rule(
        "cron",
        f"must have at most {MAX_EXPRESSION_CHARACTERS} characters in the form that EventBridge Scheduler takes",
        lambda v: not v["cron"] or not is_cron(v["cron"]) or fits_scheduler(v["cron"]),
        lambda _: "30 6 * * mon-fri",
        _SCHEDULER_API,
    ),
    _between("rate_minutes", 0, 366 * 24 * 60),
    Rule(
        "at",
        "must have the form 2027-01-31T06:30:00, from 2000 to 2199, without an offset: timezone says where",
        lambda v: not v["at"] or is_date(v["at"]),
        lambda _: "2027-01-31T06:30:00",
        _SCHEDULE_TYPES,
    ),
    Rule(
        "cron",
        "must be the only one of cron, rate_minutes and at, or be left out for one of them",
        lambda v: sum(bool(v[name]) for name in TIMES) == 1,
        lambda v: v["cron"] if v["cron"] else "30 6 * * *",
        _SCHEDULE_TYPES,
    ),
    Rule(
        "timezone",
        "must be the name of a time zone, such as Europe/Berlin, of at most 50 characters",
        lambda v: len(v["timezone"]) <= 50 and is_zone(v["timezone"]),
        lambda _: "UTC",
        _SCHEDULE_TYPES,
    ),
    Rule(
        "group",
        "must be 1 to 128 ASCII letters, digits or punctuation marks, without spaces",
        lambda v: re.fullmatch(r"[!-~]{0,128}", v["group"], re.ASCII) is not None,
        lambda v: v["name"],
        _SQS_SEND,
    ),
    Rule(
        "group",
        "must be stated, because the queue is FIFO",
        lambda v: bool(v["group"]) or not v["fifo"],
        lambda v: v["name"],
        _SQS_SEND,
    ),
    _between("flexible_window_minutes", 0, 1_440, _SCHEDULER_API, "sqs"),
)

ALL_RULES = (*SERVICE_RULES, *QUEUE_RULES, *WORKER_RULES, *SCHEDULE_RULES)


def rows(broker: str) -> str:
    """Return the rules of contracts with a broker, as the rows of a table in Markdown."""
    return "\n".join(f"| `{rule.field}` | {rule.says} |" for rule in ALL_RULES if rule.is_for(broker))
