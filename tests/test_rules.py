"""The contract's rules where they lie: each holds at its boundary and breaks just beyond it."""

from __future__ import annotations

import copy
import json
import math
import re
import runpy
from importlib.metadata import distributions, packages_distributions

import pytest
from conftest import PROJECT, RULES, TEMPLATE

is_taken = runpy.run_path(str(TEMPLATE / "hooks" / "answers.py"))["is_taken"]

QUEUE = {
    "soft_limit_seconds": 240,
    "hard_limit_seconds": 300,
    "max_countdown_seconds": 300,
    "visibility_timeout_seconds": 660,
    "heartbeat_seconds": 0,
    "heartbeat_limit_seconds": 43_200,
    "retry_backoff_seconds": 10,
    "max_receive_count": 5,
    "retention_seconds": 345_600,
    "acceptable_latency_seconds": 60,
    "seconds_per_task": 5,
}
SIZES = {"ecs": {"cpu_units": 512, "memory_mib": 1_024}, "ec2": {"instance_type": "t4g.small"}}
WORKER = {"concurrency": 4, "min": 1, "max": 10, "tasks_per_child": 1_000}
CONTRACT = {
    "$schema": "./chassis/contract.schema.json",
    "project_name": "Acme Jobs",
    "description": "Background jobs",
    "service": "acme-jobs",
    "package": "acme_jobs",
    "region": "eu-west-1",
    "broker": "sqs-standard",
    "results": "s3",
    "credentials": "role",
    "compute": "ecs",
    "queue_defaults": QUEUE,
    "queues": [{"name": "default"}],
    "worker_defaults": {**WORKER, **SIZES["ecs"]},
    "workers": [{"name": "default", "queues": ["default"]}],
    "dead_letter_retention_seconds": 1_209_600,
    "result_expires_seconds": 86_400,
    "wait_time_seconds": 20,
    "polling_interval_seconds": 0.05,
    "max_message_bytes": 262_144,
    "soft_shutdown_seconds": 100,
    "stop_timeout_seconds": 120,
    "alarm_email": "on-call@example.com",
}
LONG_QUEUE = "q" * (80 - len("acme-jobs-development--dlq"))
OF_SERVICE = (
    "routes",
    "refuse_unrouted_tasks",
    "long_delays",
    "remote_control",
    "schedules",
    "task_metrics",
    "tracing",
)
"""Fields of a service that this contract does not have."""
SECTIONS = {"$schema", "queue_defaults", "queues", "worker_defaults", "workers", *OF_SERVICE}
EVERY_RULE = RULES.ALL_RULES


def changed(changes):
    """Return the contract with other values of the service, of its queue, or of its worker."""
    contract, changes = copy.deepcopy(CONTRACT), copy.deepcopy(changes)
    contract["worker_defaults"] = {**WORKER, **SIZES.get(changes.get("compute"), SIZES["ecs"])}
    for name, value in changes.items():
        if name == "worker":
            contract["workers"][0]["name"] = value
        elif name in contract or name in OF_SERVICE:
            contract[name] = value
        elif name in contract["worker_defaults"]:
            contract["workers"][0][name] = value
        else:
            contract["queues"][0][name] = value
    if "workers" not in changes:
        contract["workers"] = [] if "queues" in changes else contract["workers"]
        for worker in contract["workers"]:
            worker["queues"] = [contract["queues"][0]["name"]]
    if contract["broker"] == "rabbitmq":
        for home in (contract, contract["queue_defaults"], *contract["queues"]):
            for name in RULES.SQS_ALONE:
                if name not in changes:
                    home.pop(name, None)
    return contract


def sharing(count, **numbers):
    """Return queues, and the worker that serves all of them."""
    names = [f"q{number}" for number in range(count)]
    return {"queues": [{"name": name, **numbers} for name in names], "workers": [{"name": "one", "queues": names}]}


def scheduled(**fields):
    """Return a schedule with other fields."""
    known = {"name": "nightly", "task": "default.send_report", "cron": "30 6 * * *", **fields}
    return {"schedules": [{name: value for name, value in known.items() if value is not None}]}


def on_rabbitmq(**changes):
    return {"broker": "rabbitmq", **changes}


def broken(changes):
    return {problem.field for problem in RULES.problems(changed(changes))}


def service(name):
    return {"service": name, "package": name.replace("-", "_")}


def many_schedules(count):
    return [{**scheduled()["schedules"][0], "name": f"s{number}"} for number in range(count)]


CRONS = [
    ("* * * * *", "* * * *"),
    ("0 0 1 * *", "0 0 1 * * *"),
    ("59 23 31 12 *", "60 23 31 12 *"),
    ("0 0 * * 7", "0 0 * * 8"),
    ("0 0 * * sun-sat", "0 0 * * sun-mon-sat"),
    ("*/5 1-20/2,23 * JAN,mar *", "*/0 * * * *"),
    ("0 0 29 2 *", "0 0 30 2 *"),
    ("0 0 1 * *", "0 0 1 * mon"),
    ("0 9 * * mon", "0 9 * * L"),
    ("10-20 * * * *", "20-10 * * * *"),
    ("0 0 * * *", "0 \u0661 * * *"),
    ("0 0 1 * *", "0 0 1 * *\n"),
    ("0 0 1 * *", "0\t0 1 * *"),
    ("0 0 1 * *", "0  0 1 * *"),
    ("0 0 1 * *", "0\u00a00 1 * *"),
    ("*/2 0-20 */2 * *", "1-58,59 */1 1-30 1,2,3,4,5,6 *"),
]
"""Expressions that hold, and that break."""


# Each: the field to change, what just holds, what just breaks.
BOUNDARIES = [
    ("project_name", {"project_name": "x" * 60}, {"project_name": "x" * 61}),
    ("project_name", {"project_name": "Café 🍰"}, {"project_name": "tab\tbed"}),
    ("project_name", {"project_name": "{ { 7 } }"}, {"project_name": "{{ 7 }}"}),
    ("project_name", {"project_name": "x"}, {"project_name": " "}),
    ("description", {"description": "$" + "{x} \"'\\ <b>"}, {"description": "two\nlines"}),
    ("description", {"description": "50 % { off"}, {"description": "{% raw"}),
    ("description", {"description": "x" * 200}, {"description": "x" * 201}),
    ("service", service("a1-b2"), service("a--b")),
    ("service", service("a1"), service("1a")),
    ("service", service("x" * 28), service("x" * 29)),
    ("service", service("jsons"), service("json")),
    ("service", service("classy"), service("class")),
    ("package", {"package": "acme_jobs"}, {"package": "acme-jobs"}),
    ("region", {"region": "us-gov-west-1"}, {"region": "us-gov-west"}),
    ("region", {"region": "ap-east-1"}, {"region": "cn-north-1"}),
    ("region", {"region": "ap-southeast-4"}, {"region": "EU-west-1"}),
    ("region", {"region": "eu-west-1"}, {"region": "eu-west-١"}),
    ("region", {"region": "us-isob-east-1"}, {"region": f"eu-{'west' * 9}-1"}),
    *((choice, {choice: options[-1]}, {choice: "other"}) for choice, options in RULES.CHOICES.items()),
    ("wait_time_seconds", {"wait_time_seconds": 20}, {"wait_time_seconds": 21}),
    ("wait_time_seconds", {"wait_time_seconds": 0}, {"wait_time_seconds": -1}),
    ("polling_interval_seconds", {"polling_interval_seconds": 0.01}, {"polling_interval_seconds": 0}),
    ("polling_interval_seconds", {"polling_interval_seconds": 1}, {"polling_interval_seconds": 1.01}),
    ("polling_interval_seconds", {"polling_interval_seconds": 1}, {"polling_interval_seconds": float("nan")}),
    ("result_expires_seconds", {"result_expires_seconds": 60}, {"result_expires_seconds": 59}),
    ("soft_shutdown_seconds", {"soft_shutdown_seconds": 110}, {"soft_shutdown_seconds": 111}),
    ("soft_shutdown_seconds", {"soft_shutdown_seconds": 1}, {"soft_shutdown_seconds": 0}),
    ("stop_timeout_seconds", {"stop_timeout_seconds": 110}, {"stop_timeout_seconds": 109}),
    ("stop_timeout_seconds", {"stop_timeout_seconds": 120}, {"stop_timeout_seconds": 121}),
    (
        "stop_timeout_seconds",
        {"compute": "ec2", "stop_timeout_seconds": 7_170, "soft_shutdown_seconds": 7_160},
        {"compute": "ec2", "stop_timeout_seconds": 7_171},
    ),
    ("alarm_email", {"alarm_email": ""}, {"alarm_email": "nobody"}),
    ("alarm_email", {"alarm_email": "on-call+aws@example.co.uk"}, {"alarm_email": "a@b.c, d@e.f"}),
    ("alarm_email", {"alarm_email": "a_b%c@x-y.example"}, {"alarm_email": "\u202ea@b.c"}),
    ("alarm_email", {"alarm_email": "a.b@c.d"}, {"alarm_email": "\udcff@b.c"}),
    ("alarm_email", {"alarm_email": "a@b.c"}, {"alarm_email": "\x00a@b.c"}),
    ("name", {"name": "a-b2"}, {"name": "a_b"}),
    ("name", {"name": "x"}, {"name": "X"}),
    ("name", {"name": "imports"}, {"name": "import"}),
    ("name", {"name": "dlq"}, {"name": "high-dlq"}),
    ("name", {"name": LONG_QUEUE}, {"name": LONG_QUEUE + "q"}),
    ("name", {"name": LONG_QUEUE[5:], "broker": "sqs-fifo"}, {"name": LONG_QUEUE[4:], "broker": "sqs-fifo"}),
    ("soft_limit_seconds", {"soft_limit_seconds": 1}, {"soft_limit_seconds": 0}),
    ("hard_limit_seconds", {"hard_limit_seconds": 241}, {"hard_limit_seconds": 240}),
    ("hard_limit_seconds", {"hard_limit_seconds": 300}, {"hard_limit_seconds": 0}),
    ("max_countdown_seconds", {"max_countdown_seconds": 0}, {"max_countdown_seconds": -1}),
    (
        "max_countdown_seconds",
        {"max_countdown_seconds": 42_840, "visibility_timeout_seconds": 43_200, "retention_seconds": 216_001},
        {"max_countdown_seconds": 42_841, "visibility_timeout_seconds": 43_200},
    ),
    (
        "max_countdown_seconds",
        sharing(2, max_countdown_seconds=42_540, visibility_timeout_seconds=43_200, retention_seconds=216_001),
        sharing(2, max_countdown_seconds=42_541, visibility_timeout_seconds=43_200, retention_seconds=216_001),
    ),
    (
        "max_countdown_seconds",
        on_rabbitmq(max_countdown_seconds=268_435_455),
        on_rabbitmq(max_countdown_seconds=268_435_456),
    ),
    ("visibility_timeout_seconds", {"visibility_timeout_seconds": 660}, {"visibility_timeout_seconds": 659}),
    (
        "visibility_timeout_seconds",
        on_rabbitmq(visibility_timeout_seconds=360),
        on_rabbitmq(visibility_timeout_seconds=359),
    ),
    ("visibility_timeout_seconds", {"visibility_timeout_seconds": 43_200}, {"visibility_timeout_seconds": 43_201}),
    ("retry_backoff_seconds", {"retry_backoff_seconds": 0.1}, {"retry_backoff_seconds": 0}),
    ("max_receive_count", {"max_receive_count": 1}, {"max_receive_count": 0}),
    (
        "max_receive_count",
        {"max_receive_count": 1_000, "retention_seconds": 660_001},
        {"max_receive_count": 1_001, "retention_seconds": 700_000},
    ),
    (
        "max_receive_count",
        {"visibility_timeout_seconds": 43_200, "max_receive_count": 27, "retention_seconds": 1_209_600},
        {"visibility_timeout_seconds": 43_200, "max_receive_count": 28, "retention_seconds": 1_209_600},
    ),
    ("retention_seconds", {"retention_seconds": 3_301}, {"retention_seconds": 3_300}),
    ("retention_seconds", {"retention_seconds": 1_209_600}, {"retention_seconds": 1_209_601}),
    (
        "retention_seconds",
        {"retention_seconds": 345_600, "dead_letter_retention_seconds": 345_601},
        {"retention_seconds": 345_600, "dead_letter_retention_seconds": 345_600},
    ),
    (
        "dead_letter_retention_seconds",
        {"dead_letter_retention_seconds": 1_209_600},
        {"dead_letter_retention_seconds": 1_209_601},
    ),
    ("heartbeat_seconds", {"heartbeat_seconds": 0}, {"heartbeat_seconds": -1}),
    (
        "heartbeat_seconds",
        {"heartbeat_seconds": 14_400, "visibility_timeout_seconds": 43_200},
        {"heartbeat_seconds": 14_401},
    ),
    ("heartbeat_limit_seconds", {"heartbeat_limit_seconds": 43_200}, {"heartbeat_limit_seconds": 43_201}),
    ("heartbeat_limit_seconds", {"heartbeat_limit_seconds": 1}, {"heartbeat_limit_seconds": 0}),
    (
        "heartbeat_limit_seconds",
        {"heartbeat_seconds": 10, "heartbeat_limit_seconds": 660},
        {"heartbeat_seconds": 10, "heartbeat_limit_seconds": 659},
    ),
    (
        # With a heartbeat it need not cover the whole task.
        "visibility_timeout_seconds",
        {"heartbeat_seconds": 10, "visibility_timeout_seconds": 30},
        {"heartbeat_seconds": 10, "visibility_timeout_seconds": 29},
    ),
    ("max_message_bytes", {"max_message_bytes": 1_024}, {"max_message_bytes": 1_023}),
    ("max_message_bytes", {"max_message_bytes": 1_048_576}, {"max_message_bytes": 1_048_577}),
    ("concurrency", {"concurrency": 1}, {"concurrency": 0}),
    ("concurrency", {"concurrency": 1_000}, {"concurrency": 1_001}),
    ("min", {"min": 0}, {"min": -1}),
    ("min", on_rabbitmq(min=1), on_rabbitmq(min=0)),
    ("max", {"min": 10}, {"min": 11}),
    ("max", {"max": 1, "min": 0}, {"max": 0, "min": 0}),
    ("max", {"max": 120, "concurrency": 1_000}, {"max": 121, "concurrency": 1_000}),
    ("tasks_per_child", {"tasks_per_child": 1}, {"tasks_per_child": 0}),
    ("tasks_per_child", {"tasks_per_child": 1_000_000}, {"tasks_per_child": 1_000_001}),
    ("cpu_units", {"cpu_units": 256}, {"cpu_units": 255}),
    ("cpu_units", {"cpu_units": 16_384, "memory_mib": 122_880}, {"cpu_units": 1_000}),
    ("memory_mib", {"cpu_units": 256, "memory_mib": 512}, {"cpu_units": 256, "memory_mib": 511}),
    ("memory_mib", {"memory_mib": 1_024}, {"memory_mib": 512}),
    ("memory_mib", {"memory_mib": 4_096}, {"memory_mib": 5_120}),
    ("memory_mib", {"memory_mib": 2_048}, {"memory_mib": 2_047}),
    ("memory_mib", {"cpu_units": 4_096, "memory_mib": 30_720}, {"cpu_units": 4_096, "memory_mib": 31_744}),
    ("memory_mib", {"cpu_units": 8_192, "memory_mib": 20_480}, {"cpu_units": 8_192, "memory_mib": 17_408}),
    ("memory_mib", {"cpu_units": 16_384, "memory_mib": 40_960}, {"cpu_units": 16_384, "memory_mib": 36_864}),
    (
        "instance_type",
        {"compute": "ec2", "instance_type": "u-6tb1.56xlarge"},
        {"compute": "ec2", "instance_type": "large"},
    ),
    (
        "instance_type",
        {"compute": "ec2", "instance_type": "c7g.metal"},
        {"compute": "ec2", "instance_type": "T4G.small"},
    ),
    ("name", {"worker": "a-b2"}, {"worker": "a_b"}),
    ("name", {"worker": "x" * 63}, {"worker": "x" * 64}),
    ("acceptable_latency_seconds", {"acceptable_latency_seconds": 1}, {"acceptable_latency_seconds": 0}),
    ("seconds_per_task", {"seconds_per_task": 0.001}, {"seconds_per_task": 0}),
    ("queues", {"queues": [{"name": f"q{n}"} for n in range(20)]}, {"queues": []}),
    ("queues", {}, {"queues": [{"name": f"q{n}"} for n in range(21)]}),
    ("queues", {}, {"queues": "default"}),
    ("queues", {}, {"queues": ["default"]}),
    ("name", {"queues": [{"name": "high"}, {"name": "other"}]}, {"queues": [{"name": "high"}, {"name": "high"}]}),
    ("workers", {"workers": []}, {"workers": "default"}),
    ("workers", {}, {"workers": ["default"]}),
    ("queues", sharing(5, visibility_timeout_seconds=1_860), sharing(6)),
    ("queues", {}, {"workers": [{"name": "idle", "queues": []}]}),
    ("queues", {}, {"workers": [{"name": "idle", "queues": "default"}]}),
    ("queues", {}, {"workers": [{"name": "idle", "queues": ["unknown"]}]}),
    ("queues", {}, {"workers": [{"name": "twice", "queues": ["default", "default"]}]}),
    ("queues", {}, {"workers": [{"name": name, "queues": ["default"]} for name in ("one", "other")]}),
    (
        # The queue that no worker lists has a worker of its name.
        "name",
        {**sharing(2), "workers": [{"name": "q0", "queues": ["q0"]}]},
        {**sharing(2), "workers": [{"name": "q1", "queues": ["q0"]}]},
    ),
    (
        # A message may wait in its worker while the other queue's task runs.
        "visibility_timeout_seconds",
        sharing(2, visibility_timeout_seconds=960),
        sharing(2, visibility_timeout_seconds=959),
    ),
    (
        "heartbeat_limit_seconds",
        sharing(2, heartbeat_seconds=30, heartbeat_limit_seconds=960),
        sharing(2, heartbeat_seconds=30, heartbeat_limit_seconds=959),
    ),
    (
        "visibility_timeout_seconds",
        on_rabbitmq(**sharing(2, visibility_timeout_seconds=660)),
        on_rabbitmq(**sharing(2, visibility_timeout_seconds=659)),
    ),
    (
        "visibility_timeout_seconds",
        on_rabbitmq(**sharing(5, visibility_timeout_seconds=1_560)),
        on_rabbitmq(**sharing(5, visibility_timeout_seconds=1_559)),
    ),
    ("fifo", {"fifo": True}, {"fifo": "yes"}),
    ("queue_name", {"queue_name": "Old_queue-1"}, {"queue_name": "old queue"}),
    ("queue_name", {"queue_name": "{environment}-x"}, {"queue_name": "{env}-x"}),
    ("queue_name", {"queue_name": "x.fifo", "fifo": True}, {"queue_name": "x", "fifo": True}),
    ("queue_name", {"queue_name": "x" * 80, "dead_letter_queue_name": "d"}, {"queue_name": "x" * 81}),
    (
        "queue_name",
        {"queue_name": "x" * 69 + "{environment}", "dead_letter_queue_name": "d"},
        {"queue_name": "x" * 70 + "{environment}"},
    ),
    (
        "queue_name",
        {"queues": [{"name": "a", "queue_name": "x"}, {"name": "b", "queue_name": "y"}], "workers": []},
        {"queues": [{"name": "a", "queue_name": "x"}, {"name": "b", "queue_name": "x"}], "workers": []},
    ),
    (
        "dead_letter_queue_name",
        {"queue_name": "acme-jobs-{environment}-x", "managed": False},
        {"queue_name": "x" * 78, "managed": False},
    ),
    (
        "queue_name",
        {"queues": [{"name": "a"}, {"name": "b", "queue_name": "acme-jobs-{environment}-a-more"}]},
        {"queues": [{"name": "a"}, {"name": "b", "queue_name": "acme-jobs-{environment}-a-dlq"}]},
    ),
    (
        "dead_letter_queue_name",
        {
            "queues": [
                {"name": name, "queue_name": name, "dead_letter_queue_name": "dead", "managed": False} for name in "ab"
            ]
        },
        {"queues": [{"name": name, "queue_name": name, "dead_letter_queue_name": "dead"} for name in "ab"]},
    ),
    ("queue_name", {"queue_name": "x"}, {"queue_defaults": {**QUEUE, "queue_name": "x"}}),
    ("dead_letter_queue_name", {"dead_letter_queue_name": "dead"}, {"dead_letter_queue_name": "dead/1"}),
    ("dead_letter_queue_name", {"dead_letter_queue_name": "dead"}, {"dead_letter_queue_name": "dead.fifo"}),
    ("dead_letter_queue_name", {"dead_letter_queue_name": "x" * 80}, {"dead_letter_queue_name": "x" * 81}),
    (
        "dead_letter_queue_name",
        {"queue_name": "x", "dead_letter_queue_name": "y"},
        {"queue_name": "x", "dead_letter_queue_name": "x"},
    ),
    ("account", {"account": "123456789012", "managed": False}, {"account": "12345678901", "managed": False}),
    ("managed", {"managed": False}, {"account": "123456789012"}),
    ("routes", {"routes": {"reports.*": "default"}}, {"routes": {"reports.*": "nowhere"}}),
    ("routes", {"routes": {}}, {"routes": ["reports.*"]}),
    ("refuse_unrouted_tasks", {"refuse_unrouted_tasks": True}, {"refuse_unrouted_tasks": 1}),
    ("long_delays", {"long_delays": True}, {"long_delays": 1}),
    ("long_delays", on_rabbitmq(), {**on_rabbitmq(), "long_delays": False}),
    ("remote_control", {"remote_control": True}, {"remote_control": 1}),
    ("remote_control", on_rabbitmq(), {**on_rabbitmq(), "remote_control": False}),
    ("task_metrics", {"task_metrics": True}, {"task_metrics": 1}),
    ("tracing", {"tracing": True}, {"tracing": "true"}),
    ("schedules", {"schedules": []}, {"schedules": {}}),
    ("schedules", scheduled(), {"schedules": ["nightly"]}),
    ("schedules", {"schedules": many_schedules(200)}, {"schedules": many_schedules(201)}),
    ("name", scheduled(name="a-1"), scheduled(name="A-1")),
    ("name", scheduled(name="x" * 64), scheduled(name="x" * 65)),
    ("name", scheduled(), {"schedules": scheduled()["schedules"] * 2}),
    ("name", scheduled(), scheduled(name=None)),
    ("task", scheduled(task="other.module:task", queue="default"), scheduled(task="other task")),
    ("task", scheduled(task="x" * 255, queue="default"), scheduled(task="x" * 256)),
    ("queue", scheduled(queue="default"), scheduled(queue="nowhere")),
    ("queue", scheduled(queue="default"), scheduled(queue=["default"])),
    ("queue", scheduled(task="acme_jobs.tasks.default.x"), scheduled(task="acme_jobs.examples.x")),
    (
        "dead_letter_queue_name",
        {"queues": [{"name": "scheduler"}]},
        {"queues": [{"name": "scheduler"}], "long_delays": True},
    ),
    ("args", scheduled(args=[{"a": None}]), scheduled(args={"a": None})),
    ("args", scheduled(args=["x" * 258_000]), scheduled(args=["x" * 258_048])),
    ("args", scheduled(args=["<" * 28_600]), scheduled(args=["<" * 28_700])),
    (
        "args",
        scheduled(args=["x" * 5_000]) | {"max_message_bytes": 10_000},
        scheduled(args=["x" * 6_000]) | {"max_message_bytes": 10_000},
    ),
    ("kwargs", scheduled(kwargs={"a": []}), scheduled(kwargs=[["a", []]])),
    *(("cron", scheduled(cron=holds), scheduled(cron=breaks)) for holds, breaks in CRONS),
    ("cron", scheduled(cron=None, rate_minutes=5), scheduled(cron=None)),
    ("cron", scheduled(cron=None, at="2027-01-31T06:30:00"), scheduled(rate_minutes=5)),
    ("rate_minutes", scheduled(cron=None, rate_minutes=1), scheduled(cron=None, rate_minutes=-1)),
    ("rate_minutes", scheduled(cron=None, rate_minutes=527_040), scheduled(cron=None, rate_minutes=527_041)),
    ("rate_minutes", scheduled(cron=None, rate_minutes=1), scheduled(cron=None, rate_minutes=1.5)),
    ("at", scheduled(cron=None, at="2028-02-29T06:30:00"), scheduled(cron=None, at="2027-02-29T06:30:00")),
    ("at", scheduled(cron=None, at="2027-01-31T06:30:00"), scheduled(cron=None, at="2027-01-31T06:30:00+01:00")),
    ("at", scheduled(cron=None, at="2027-01-31T06:30:00"), scheduled(cron=None, at="2027-01-31")),
    ("timezone", scheduled(timezone="America/Argentina/ComodRivadavia"), scheduled(timezone="Mars/Olympus")),
    ("timezone", scheduled(timezone="UTC"), scheduled(timezone="../UTC")),
    ("timezone", scheduled(timezone="UTC"), scheduled(timezone="localtime")),
    ("timezone", scheduled(timezone="UTC"), scheduled(timezone="posix/UTC")),
    ("at", scheduled(cron=None, at="2199-12-31T23:59:59"), scheduled(cron=None, at="2200-01-01T00:00:00")),
    ("at", scheduled(cron=None, at="2000-01-01T00:00:00"), scheduled(cron=None, at="1999-12-31T23:59:59")),
    ("group", scheduled(group="x" * 128), scheduled(group="x" * 129)),
    ("group", scheduled(group="reports"), scheduled(group="two words")),
    ("group", scheduled(group="reports") | {"broker": "sqs-fifo"}, scheduled() | {"broker": "sqs-fifo"}),
    ("enabled", scheduled(enabled=False), scheduled(enabled=0)),
    ("flexible_window_minutes", scheduled(flexible_window_minutes=1_440), scheduled(flexible_window_minutes=1_441)),
    ("flexible_window_minutes", scheduled(flexible_window_minutes=0), scheduled(flexible_window_minutes=-1)),
    ("flexible_window_minutes", scheduled(), scheduled(flexible_window_minutes=5) | on_rabbitmq()),
    ("queue_defaults", {}, {"queue_defaults": None}),
    ("worker_defaults", {}, {"worker_defaults": []}),
    ("$schema", {"$schema": "elsewhere.json"}, {"$schema": 2}),
]


@pytest.mark.parametrize(("field", "holds", "breaks"), BOUNDARIES, ids=lambda value: str(value)[:40])
def test_rule_holds_at_its_boundary_and_breaks_beyond(field, holds, breaks):
    assert broken(holds) == set()
    assert field in broken(breaks)


def test_every_rule_is_broken_by_some_boundary():
    everything = {(rule.field, rule.says) for rule in EVERY_RULE if not rule.advice}
    seen = set()
    for _, _, breaks in BOUNDARIES:
        for problem in RULES.problems(changed(breaks)):
            seen |= {(field, says) for field, says in everything if field == problem.field and _is(says, problem)}
    assert everything - seen == set()


def bounds():
    """Return every rule that says `between`, with what its text says."""
    for rule in EVERY_RULE:
        if said := re.fullmatch(r"must be between (\S+) and (\S+)", rule.says):
            yield rule, *map(json.loads, said.groups())


@pytest.mark.parametrize(("rule", "low", "high"), list(bounds()), ids=lambda value: getattr(value, "field", value))
def test_rule_holds_at_the_bounds_it_names_and_breaks_beyond_both(rule, low, high):
    assert rule.holds({rule.field: low})
    assert rule.holds({rule.field: high})
    for beyond, nearest in ((math.nextafter(low, -math.inf), low), (math.nextafter(high, math.inf), high)):
        assert not rule.holds({rule.field: beyond})
        assert rule.suggest({rule.field: beyond}) == nearest


def _is(says, problem):
    """Whether a problem comes from a rule: the rule's text, give or take values in brackets."""
    values = re.compile(r" \([^()]*\)")
    return values.sub("", problem.rule) == values.sub("", says)


@pytest.mark.parametrize("value", ["5", True, None, 1.5, [5]])
def test_number_of_another_kind_is_refused(value):
    (problem,) = RULES.problems(changed({"max_receive_count": value}))
    assert (problem.field, problem.rule) == ("max_receive_count", "must be a whole number")


@pytest.mark.parametrize(
    ("changes", "suggestion"),
    [
        ({"max_receive_count": "240"}, "240 without quotes"),
        ({"seconds_per_task": "0.5"}, "0.5 without quotes"),
        ({"refuse_unrouted_tasks": "true"}, "true without quotes"),
        ({"max_receive_count": "2.5"}, "digits only, such as 60"),
        ({"max_receive_count": "often"}, "digits only, such as 60"),
    ],
)
def test_value_when_in_quotes_then_the_suggestion_is_to_remove_them(changes, suggestion):
    (problem,) = RULES.problems(changed(changes))
    assert problem.suggestion == suggestion


@pytest.mark.parametrize("field", ["rate_minutes", "at", "cron"])
def test_schedule_when_its_time_is_of_another_kind_then_only_that_is_reported(field):
    (problem,) = RULES.problems(changed(scheduled(**{"cron": None, field: ["often"]})))
    assert problem.field == field


def test_message_shows_letters_and_escapes_control_characters():
    (problem,) = RULES.problems(changed({"region": "M\u00e4rz\x1b\u202e"}))
    assert '    given: "M\u00e4rz\\u001b\\u202e"' in str(problem).splitlines()


def test_a_number_longer_than_any_float_is_refused():
    assert broken({"seconds_per_task": 10**400}) == {"seconds_per_task"}


def test_a_missing_and_an_unknown_field_are_both_reported():
    contract = copy.deepcopy(CONTRACT)
    contract["queue_defaults"]["visibility_timeout"] = contract["queue_defaults"].pop("visibility_timeout_seconds")
    contract["workers"][0]["memory"] = contract["worker_defaults"].pop("memory_mib")
    del contract["region"]
    found = {(problem.field, problem.rule, problem.of) for problem in RULES.problems(contract)}
    assert found == {
        ("region", "is missing", ""),
        ("visibility_timeout_seconds", "is missing", "queue default"),
        ("visibility_timeout", "is not part of the contract", "queue_defaults"),
        ("memory_mib", "is missing", "worker default"),
        ("memory", "is not part of the contract", "worker default"),
    }


def test_an_unknown_field_when_like_no_other_then_each_known_one_is_named_once():
    (problem,) = RULES.problems({**CONTRACT, "x": 1})
    names = str(problem.suggestion).removeprefix("one of ").split(", ")
    assert "schedules" in names
    assert len(names) == len(set(names))


def test_unknown_fields_are_reported_as_they_stand_there():
    unknown = [f"unknown_{letter}" for letter in "zyxabc"]
    found = RULES.problems({**CONTRACT, **dict.fromkeys(unknown)})
    assert [problem.field for problem in found] == unknown


def test_message_names_field_rule_values_given_and_suggestion():
    (problem,) = RULES.problems(changed({"visibility_timeout_seconds": 600}))
    assert str(problem).splitlines() == [
        "queue default: visibility_timeout_seconds must be at least max_countdown_seconds (300) "
        "+ hard_limit_seconds (300) + 60, or tasks run twice",
        "    given: 600",
        "    try:   660",
        "    why:   https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/"
        "sqs-visibility-timeout.html",
    ]


@pytest.mark.parametrize(
    "breaks", [breaks for _, _, breaks in BOUNDARIES if not SECTIONS & breaks.keys()], ids=lambda value: str(value)[:40]
)
def test_following_every_suggestion_at_once_makes_a_contract_that_holds(breaks):
    contract = changed(breaks)
    homes = {**contract, "": contract, "queue": contract["queues"][0], "worker": contract["workers"][0]}
    for problem in RULES.problems(contract):
        home = homes[problem.of.partition(" ")[0]]
        if problem.field == "retention_seconds" and isinstance(problem.suggestion, str):
            home, problem = contract, RULES.Problem("dead_letter_retention_seconds", 0, "", 1_209_600)
        if problem.rule in ("must be a number", "must be a whole number"):
            problem = RULES.Problem(problem.field, 0, "", 1)
        if problem.rule == "must be true or false":
            problem = RULES.Problem(problem.field, 0, "", False)
        home[problem.field] = problem.suggestion
        if (problem.field, problem.of.partition(" ")[0]) == ("name", "queue"):
            contract["workers"][0]["queues"] = [problem.suggestion]
    assert RULES.problems(contract) == []


def test_a_service_takes_no_name_of_what_is_installed_with_it():
    """A module of another's would be imported in place of the service's, and a command overwritten."""
    pinned = {
        _normalized(pin)
        for path in PROJECT.glob("requirements-dev.*.txt")
        for pin in re.findall(r"^([a-z0-9._-]+)==", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    installed = [item for item in distributions() if _normalized(item.metadata["Name"]) in pinned]
    # Folders of stubs have a dash in their name and cannot be imported; newer Pythons list them all the same.
    homes = {module: set(map(_normalized, homes)) for module, homes in packages_distributions().items()}
    modules = {module for module in homes if module.isidentifier() and pinned & homes[module]}
    scripts = {path.name for item in installed for path in item.files or () if path.parent.name == "bin"}
    names = {name.replace("_", "-") for name in modules | scripts | {"python", "pip", "test", "tomllib", "distutils"}}
    assert len(names) > 40
    free = {name for name in names if _fits(name) and "service" not in broken(service(name))}
    assert {name for name in free if not is_taken(name)} == set()


def _normalized(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _fits(name):
    return re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name)


# Each: the field to change, what draws no recommendation, what just draws one.
RECOMMENDED = [
    ("alarm_email", {"alarm_email": "on-call@example.com"}, {"alarm_email": ""}),
    ("max_receive_count", {"max_receive_count": 3}, {"max_receive_count": 2}),
    ("hard_limit_seconds", {"soft_limit_seconds": 150}, {"soft_limit_seconds": 149}),
    ("hard_limit_seconds", {"soft_limit_seconds": 5, "hard_limit_seconds": 60}, {"soft_limit_seconds": 5}),
    ("seconds_per_task", {"seconds_per_task": 240}, {"seconds_per_task": 240.5}),
    ("retry_backoff_seconds", {"retry_backoff_seconds": 659}, {"retry_backoff_seconds": 660}),
    ("min", {"min": 0, "acceptable_latency_seconds": 300}, {"min": 0, "acceptable_latency_seconds": 299}),
    ("min", {"min": 1, "acceptable_latency_seconds": 1}, {"min": 0, "acceptable_latency_seconds": 1}),
    (
        "credentials",
        on_rabbitmq(credentials="keys", results="s3"),
        on_rabbitmq(credentials="keys", results="redis"),
    ),
]


@pytest.mark.parametrize(("field", "fine", "unusual"), RECOMMENDED, ids=lambda value: str(value)[:40])
def test_unusual_value_when_it_is_valid_then_is_recommended_against(field, fine, unusual):
    assert RULES.problems(changed(fine)) == RULES.problems(changed(unusual)) == []
    assert RULES.advice(changed(fine)) == []
    assert [problem.field for problem in RULES.advice(changed(unusual))] == [field]


def test_recommendation_when_there_is_one_then_some_value_draws_it():
    drawn = {rule.says for _, _, unusual in RECOMMENDED for rule in EVERY_RULE if _draws(rule, unusual)}
    assert {rule.says for rule in EVERY_RULE if rule.advice} == drawn


def _draws(rule, unusual):
    return any(_is(rule.says, problem) for problem in RULES.advice(changed(unusual)))


def test_min_when_the_most_urgent_queue_may_not_wait_then_is_recommended():
    contract = changed(sharing(2))
    contract["workers"][0]["min"] = 0
    contract["queues"][0]["acceptable_latency_seconds"] = 3_600
    (problem,) = RULES.advice(contract)
    assert (problem.of, problem.field) == ("worker one", "min")
    contract["queues"][1]["acceptable_latency_seconds"] = 3_600
    assert RULES.advice(contract) == []


def test_min_when_the_worker_is_not_listed_then_is_recommended_as_well():
    contract = changed({**sharing(1), "workers": []})
    contract["worker_defaults"]["min"] = 0
    (problem,) = RULES.advice(contract)
    assert (problem.of, problem.field) == ("worker q0", "min")


def test_field_of_another_broker_is_refused():
    contract = changed(on_rabbitmq())
    assert RULES.problems(contract) == []
    contract["wait_time_seconds"] = contract["queue_defaults"]["heartbeat_seconds"] = 0
    found = {(problem.field, problem.rule) for problem in RULES.problems(contract)}
    no_part = "is not part of the contract"
    assert found == {("wait_time_seconds", no_part), ("heartbeat_seconds", no_part)}


def test_field_when_it_is_of_another_compute_then_is_refused():
    contract = changed({"compute": "ec2"})
    assert RULES.problems(contract) == []
    contract["worker_defaults"]["cpu_units"] = contract["workers"][0]["memory_mib"] = 1_024
    found = {(problem.of, problem.field, problem.rule) for problem in RULES.problems(contract)}
    no_part = "is not part of the contract"
    assert found == {("worker_defaults", "cpu_units", no_part), ("worker default", "memory_mib", no_part)}


def test_default_when_it_is_wrong_then_is_reported_once():
    contract = changed({**sharing(3), "workers": []})
    contract["queue_defaults"]["max_receive_count"] = 0
    contract["worker_defaults"]["concurrency"] = "4"
    found = [(problem.of, problem.field) for problem in RULES.problems(contract)]
    assert found == [("queue_defaults", "max_receive_count"), ("worker_defaults", "concurrency")]


@pytest.mark.parametrize("field", [*WORKER, *SIZES["ecs"]])
def test_default_when_only_an_implied_worker_needs_it_then_is_missed(field):
    contract = changed({**sharing(2), "workers": [{"name": "q0", "queues": ["q0"], **WORKER, **SIZES["ecs"]}]})
    del contract["worker_defaults"][field]
    found = [(problem.of, problem.field, problem.rule) for problem in RULES.problems(contract)]
    assert found == [("worker q1", field, "is missing")]


def test_default_when_a_queue_states_its_own_then_the_rules_hold_for_both():
    contract = changed({**sharing(2), "workers": []})
    contract["queues"][1]["hard_limit_seconds"] = 500
    found = [(problem.of, problem.field, problem.suggestion) for problem in RULES.problems(contract)]
    assert found == [("queue q1", "visibility_timeout_seconds", 860)]


def test_name_of_a_queue_when_in_the_defaults_then_is_refused():
    for section, field, value in (("queue_defaults", "name", "high"), ("worker_defaults", "queues", ["default"])):
        (problem,) = RULES.problems({**CONTRACT, section: {**CONTRACT[section], field: value}})
        assert (problem.of, problem.field, problem.rule) == (section, field, "is not part of the contract")


def test_contract_when_of_version_1_then_the_converter_is_suggested():
    first = {**copy.deepcopy(CONTRACT), "queues": [{"name": "default", **QUEUE, "workers_max": 10}]}
    del first["queue_defaults"], first["worker_defaults"], first["workers"]
    (problem,) = RULES.problems(first)
    assert "celery_aws.contract.convert" in problem.suggestion


def places(value, way=()):
    """Yield where in a contract there is anything: the keys and indexes that lead there."""
    yield way
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*way, key))


@pytest.mark.parametrize("odd", [None, True, 5, "x", "", [], {}, [5], [[]], {"name": []}, float("nan")], ids=repr)
def test_contract_when_anything_is_in_any_place_then_never_raises(odd):
    whole = changed(sharing(2) | scheduled(args=[1], kwargs={"a": 1}, timezone="UTC", group="a"))
    for *way, last in filter(None, places(whole)):
        contract = home = copy.deepcopy(whole)
        for key in way:
            home = home[key]
        home[last] = copy.deepcopy(odd)
        if not RULES.problems(contract):
            RULES.parse(contract)
        version_1 = {name: value for name, value in contract.items() if name != "queue_defaults"}
        assert RULES.problems(version_1)


def test_queues_of_rabbitmq_have_short_names_since_the_broker_is_their_own():
    contract = RULES.parse(changed(on_rabbitmq()))
    (queue,) = contract.queues
    assert contract.celery_name(queue) == contract.queue_name(queue, "staging") == "default"
    assert contract.dead_letter_queue_name(queue, "staging") == "default-dlq"
    assert contract.idle_requests_per_month == 0


def test_derived_names_and_numbers(tmp_path):
    path = tmp_path / "contract.json"
    path.write_text(json.dumps(changed({"broker": "sqs-fifo"})))
    contract = RULES.read(path)
    (queue,) = contract.queues
    assert contract.celery_name(queue) == "default.fifo"
    assert contract.queue_name(queue, "staging") == "acme-jobs-staging-default.fifo"
    assert contract.dead_letter_queue_name(queue, "staging") == "acme-jobs-staging-default-dlq.fifo"
    assert queue.seconds_to_dead_letter == 10 + 20 + 40 + 80
    assert contract.idle_requests_per_month == 129_277  # 2,592,000 s / 20.05 s
    assert contract.queue("default") is queue
    with pytest.raises(KeyError, match="queues: default"):
        contract.queue("defualt")


def test_queue_when_no_worker_lists_it_then_has_one_of_its_name():
    contract = changed({**sharing(3), "workers": [{"name": "both", "queues": ["q0", "q2"], "max": 3}]})
    contract["queues"][2]["max_receive_count"] = 9
    read = RULES.parse(contract)
    assert [(worker.name, worker.queues, worker.max) for worker in read.workers] == [
        ("both", ("q0", "q2"), 3),
        ("q1", ("q1",), 10),
    ]
    assert [queue.max_receive_count for queue in read.queues] == [5, 5, 9]
    assert [read.worker_of(queue).name for queue in read.queues] == ["both", "q1", "both"]
    assert [queue.name for queue in read.queues_of(read.worker("both"))] == ["q0", "q2"]
    assert read.idle_requests_per_month == 3 * 129_277 - 1  # rounded once, not thrice
    with pytest.raises(KeyError, match="both serves q0, q2; q1 serves q1"):
        read.worker("q0")


def test_prefetching_when_queues_share_a_worker_then_is_the_slowest_ones():
    contract = changed(sharing(2))
    contract["queues"][0]["seconds_per_task"] = 0.1
    read = RULES.parse(contract)
    assert [queue.prefetch_multiplier for queue in read.queues] == [10, 1]
    assert read.prefetch_multiplier(read.worker("one")) == 1
    assert [read.messages_per_poll(queue) for queue in read.queues] == [1, 1]
