"""The contract's rules where they lie: each holds at its boundary and breaks just beyond it."""

from __future__ import annotations

import copy
import json
import math
import re
import runpy
from importlib.metadata import distributions, packages_distributions

import pytest
from conftest import PROJECT, RULES, TEMPLATE, show

is_taken = runpy.run_path(str(TEMPLATE / "hooks" / "answers.py"))["is_taken"]

QUEUE = {
    "name": "default",
    "soft_limit_seconds": 240,
    "hard_limit_seconds": 300,
    "max_countdown_seconds": 300,
    "visibility_timeout_seconds": 660,
    "heartbeat_seconds": 0,
    "heartbeat_limit_seconds": 43_200,
    "retry_backoff_seconds": 10,
    "max_receive_count": 5,
    "retention_seconds": 345_600,
    "concurrency": 4,
    "workers_min": 1,
    "workers_max": 10,
    "acceptable_latency_seconds": 60,
    "seconds_per_task": 5,
}
CONTRACT = {
    "project_name": "Acme Jobs",
    "description": "Background jobs",
    "service": "acme-jobs",
    "package": "acme_jobs",
    "region": "eu-west-1",
    "broker": "sqs-standard",
    "results": "s3",
    "credentials": "role",
    "compute": "ecs",
    "queues": [QUEUE],
    "dead_letter_retention_seconds": 1_209_600,
    "result_expires_seconds": 86_400,
    "wait_time_seconds": 20,
    "polling_interval_seconds": 0.05,
    "max_message_bytes": 262_144,
    "soft_shutdown_seconds": 100,
    "stop_timeout_seconds": 120,
    "alarm_email": "",
}
LONG_QUEUE = "q" * (80 - len("acme-jobs-development--dlq"))


def changed(changes):
    contract = copy.deepcopy(CONTRACT)
    for name, value in changes.items():
        (contract if name in contract else contract["queues"][0])[name] = value
    if contract["broker"] == "rabbitmq" and isinstance(contract["queues"], list):
        for home in (contract, *contract["queues"]):
            for name in RULES.SQS_ALONE:
                home.pop(name, None)
    return contract


def on_rabbitmq(**changes):
    return {"broker": "rabbitmq", **changes}


def broken(changes):
    return {problem.field for problem in RULES.problems(changed(changes))}


def service(name):
    return {"service": name, "package": name.replace("-", "_")}


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
        {"compute": "ec2", "stop_timeout_seconds": 7_210, "soft_shutdown_seconds": 7_200},
        {"compute": "ec2", "stop_timeout_seconds": 7_211},
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
    ("workers_min", {"workers_min": 0}, {"workers_min": -1}),
    ("workers_min", on_rabbitmq(workers_min=1), on_rabbitmq(workers_min=0)),
    ("workers_max", {"workers_min": 10}, {"workers_min": 11}),
    ("workers_max", {"workers_max": 1, "workers_min": 0}, {"workers_max": 0, "workers_min": 0}),
    ("workers_max", {"workers_max": 120, "concurrency": 1_000}, {"workers_max": 121, "concurrency": 1_000}),
    ("acceptable_latency_seconds", {"acceptable_latency_seconds": 1}, {"acceptable_latency_seconds": 0}),
    ("seconds_per_task", {"seconds_per_task": 0.001}, {"seconds_per_task": 0}),
    ("queues", {"queues": [{**QUEUE, "name": f"q{n}"} for n in range(20)]}, {"queues": []}),
    ("queues", {}, {"queues": [{**QUEUE, "name": f"q{n}"} for n in range(21)]}),
    ("queues", {}, {"queues": "default"}),
    ("queues", {}, {"queues": ["default"]}),
    ("name", {"queues": [QUEUE, {**QUEUE, "name": "other"}]}, {"queues": [QUEUE, QUEUE]}),
]


@pytest.mark.parametrize(("field", "holds", "breaks"), BOUNDARIES, ids=lambda value: str(value)[:40])
def test_rule_holds_at_its_boundary_and_breaks_beyond(field, holds, breaks):
    assert broken(holds) == set()
    assert field in broken(breaks)
    show("boundaries of rules tried")


def test_every_rule_is_broken_by_some_boundary():
    everything = {(rule.field, rule.says) for rule in (*RULES.SERVICE_RULES, *RULES.QUEUE_RULES) if not rule.advice}
    seen = set()
    for _, _, breaks in BOUNDARIES:
        for problem in RULES.problems(changed(breaks)):
            seen |= {(field, says) for field, says in everything if field == problem.field and _is(says, problem)}
    assert everything - seen == set()


def bounds():
    """Return every rule that says `between`, with what its text says."""
    for rule in (*RULES.SERVICE_RULES, *RULES.QUEUE_RULES):
        if said := re.fullmatch(r"must be between (\S+) and (\S+)", rule.says):
            yield rule, *map(json.loads, said.groups())


@pytest.mark.parametrize(("rule", "low", "high"), list(bounds()), ids=lambda value: getattr(value, "field", value))
def test_rule_holds_at_the_bounds_it_names_and_breaks_beyond_both(rule, low, high):
    assert rule.holds({rule.field: low})
    assert rule.holds({rule.field: high})
    for beyond, nearest in ((math.nextafter(low, -math.inf), low), (math.nextafter(high, math.inf), high)):
        assert not rule.holds({rule.field: beyond})
        assert rule.suggest({rule.field: beyond}) == nearest
        show("boundaries of rules tried")


def _is(says, problem):
    """Whether a problem comes from a rule: the rule's text, give or take values in brackets."""
    values = re.compile(r" \([^()]*\)")
    return values.sub("", problem.rule) == values.sub("", says)


@pytest.mark.parametrize("value", ["5", True, None, 1.5, [5]])
def test_number_of_another_kind_is_refused(value):
    (problem,) = RULES.problems(changed({"max_receive_count": value}))
    assert (problem.field, problem.rule) == ("max_receive_count", "must be a whole number")


def test_a_number_longer_than_any_float_is_refused():
    assert broken({"seconds_per_task": 10**400}) == {"seconds_per_task"}


def test_a_missing_and_an_unknown_field_are_both_reported():
    contract = copy.deepcopy(CONTRACT)
    contract["queues"][0]["visibility_timeout"] = contract["queues"][0].pop("visibility_timeout_seconds")
    del contract["region"]
    found = {(problem.field, problem.rule, problem.queue) for problem in RULES.problems(contract)}
    assert found == {
        ("region", "is missing", ""),
        ("visibility_timeout_seconds", "is missing", "default"),
        ("visibility_timeout", "is not part of the contract", "default"),
    }


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
    "breaks", [breaks for _, _, breaks in BOUNDARIES if "queues" not in breaks], ids=lambda value: str(value)[:40]
)
def test_following_every_suggestion_at_once_makes_a_contract_that_holds(breaks):
    contract = changed(breaks)
    for problem in RULES.problems(contract):
        home = contract["queues"][0] if problem.queue else contract
        if problem.field == "retention_seconds" and isinstance(problem.suggestion, str):
            home, problem = contract, RULES.Problem("dead_letter_retention_seconds", 0, "", 1_209_600)
        if problem.rule.startswith("must be a "):
            problem = RULES.Problem(problem.field, 0, "", 1)
        home[problem.field] = problem.suggestion
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


def test_few_receives_are_worth_a_word_but_allowed():
    contract = changed({"max_receive_count": 2})
    assert RULES.problems(contract) == []
    (word,) = RULES.advice(contract)
    assert word.field == "max_receive_count"
    assert RULES.advice(CONTRACT) == []


def test_field_of_another_broker_is_refused():
    contract = changed(on_rabbitmq())
    assert RULES.problems(contract) == []
    contract["wait_time_seconds"] = contract["queues"][0]["heartbeat_seconds"] = 0
    found = {(problem.field, problem.rule) for problem in RULES.problems(contract)}
    no_part = "is not part of the contract"
    assert found == {("wait_time_seconds", no_part), ("heartbeat_seconds", no_part)}


def test_keys_that_would_open_nothing_are_worth_a_word():
    assert RULES.advice(changed(on_rabbitmq(credentials="keys", results="s3"))) == []
    (word,) = RULES.advice(changed(on_rabbitmq(credentials="keys", results="redis")))
    assert word.field == "credentials"


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
