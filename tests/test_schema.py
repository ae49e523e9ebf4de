"""The JSON schema of contracts: what it says of a field is what the rules say."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
from conftest import COMBINATIONS, PROJECT, RULES, label
from jsonschema import Draft7Validator
from test_rules import BOUNDARIES, CONTRACT, EVERY_RULE, SECTIONS, changed, many_schedules, scheduled

from tools import schema

SCHEMA = json.loads((PROJECT / "chassis" / "contract.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft7Validator(SCHEMA)

LEFT_TO_RULES = [("service", {"service": name, "package": name}) for name in ("json", "class")]
LEFT_TO_RULES += [(field, {field: "x" * 81}) for field in ("queue_name", "dead_letter_queue_name")]
"""Names of Python's own modules, which no schema can list for every version, and what depends on a placeholder."""


def refused(contract):
    """Return the keys of what the schema refuses, as `queues.soft_limit_seconds`; `.` of what is missing there."""
    found = set()
    for error in VALIDATOR.iter_errors(contract):
        found.add(".".join(key for key in error.absolute_path if isinstance(key, str)))
    return found


def test_schema_when_generated_then_is_the_committed_file():
    assert schema.TARGET.read_text(encoding="utf-8") == schema.text(), "run `make schema`"


def test_schema_when_checked_then_is_valid_and_describes_every_field():
    Draft7Validator.check_schema(SCHEMA)
    own = {name: field for name, field in SCHEMA["properties"].items() if name not in SECTIONS}
    queue, worker = SCHEMA["definitions"]["queue"], SCHEMA["definitions"]["worker"]
    for fields in (own, queue, worker):
        assert all(field["description"].endswith(".") for field in fields.values())
        assert all("In seconds." in fields[name]["description"] for name in fields if name.endswith("_seconds"))


@pytest.mark.parametrize(
    ("shape", "where", "apart"),
    [
        (RULES.Contract, SCHEMA["properties"], SECTIONS),
        (RULES.Queue, SCHEMA["definitions"]["queue"], set()),
        (RULES.Worker, SCHEMA["definitions"]["worker"], {"queues"}),
        (RULES.Schedule, SCHEMA["definitions"]["schedule"], {"args", "kwargs"}),
    ],
)
def test_field_when_in_the_contract_then_is_in_its_section_with_its_type(shape, where, apart):
    kinds = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
    expected = {field.name: kinds[str(field.type)] for field in dataclasses.fields(shape) if field.name not in apart}
    assert {name: field.get("type") for name, field in where.items() if name not in apart} == expected
    for section in ("queue", "worker"):
        if shape.__name__.lower() == section:
            defaults, items = SCHEMA["properties"][f"{section}_defaults"], SCHEMA["properties"][f"{section}s"]["items"]
            assert set(defaults["properties"]) == expected.keys() - {*RULES.checking.OF_ONE}
            assert set(items["properties"]) == expected.keys() | apart


class Read(dict):
    """Values that note which of them were read."""

    def __init__(self, values):
        super().__init__(values)
        self.names = set()

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)


def concerns_one_field(field, contract):
    """Return whether some rule of one field alone is broken: such as the schema can say."""
    whole = RULES.effective(contract)
    for rule in EVERY_RULE:
        if rule.field != field or rule.advice or not rule.is_for(contract["broker"]):
            continue
        if rule in RULES.SCHEDULE_RULES:
            continue
        homes = {rule in RULES.QUEUE_RULES: whole["queues"], rule in RULES.WORKER_RULES: whole["workers"]}
        for item in homes.get(True, [{}]):
            values = Read({**whole, **item, "other_tasks_seconds": 0})
            try:
                if field in values and not rule.holds(values) and values.names == {field}:
                    return True
            except KeyError:  # It refers to a field that the contract need not have.
                continue
    return False


ALONE = [
    (field, breaks)
    for field, _, breaks in BOUNDARIES
    if not SECTIONS & breaks.keys()
    and (field, breaks) not in LEFT_TO_RULES
    and concerns_one_field(field, changed(breaks))
    and breaks.get(field) == breaks.get(field)  # JSON has no NaN.
]


def test_boundaries_when_of_one_field_then_cover_nearly_every_field():
    assert len(ALONE) > 40
    assert {rule.field for rule in EVERY_RULE if rule not in RULES.SCHEDULE_RULES} - {field for field, _ in ALONE} <= {
        *("stop_timeout_seconds", "memory_mib", "package", "managed"),  # Their rules are of several fields.
        *("result_expires_seconds", "polling_interval_seconds"),
    }


@pytest.mark.parametrize(("field", "breaks"), ALONE, ids=lambda value: str(value)[:40])
def test_value_when_it_breaks_a_rule_of_its_field_then_is_refused(field, breaks):
    assert field in {key.rpartition(".")[2] for key in refused(changed(breaks))}


@pytest.mark.parametrize("holds", [holds for _, holds, _ in BOUNDARIES], ids=lambda value: str(value)[:40])
def test_contract_when_it_breaks_no_rule_then_fits(holds):
    assert refused(changed(holds)) == set()


@pytest.mark.parametrize(
    "breaks",
    [
        {"queues": []},
        {"queues": "default"},
        {"queues": ["default"]},
        {"queues": [{"name": f"q{n}"} for n in range(21)]},
        {"queue_defaults": None},
        {"worker_defaults": []},
        {"workers": "default"},
        {"workers": [{"name": "idle", "queues": []}]},
        {"workers": [{"name": "idle", "queues": "default"}]},
        {"workers": [{"name": "busy", "queues": list("abcdef")}]},
        {"workers": [{"name": "twice", "queues": ["default", "default"]}]},
        {"$schema": 2},
        {"region": None},
        {"schedules": {}},
        {"schedules": many_schedules(201)},
        *(scheduled(**{name: None}) for name in ("name", "task")),
        *(scheduled(name=name) for name in ("A", "x" * 65)),
        *(scheduled(task=task) for task in ("two words", "x" * 256)),
        *(scheduled(group=group) for group in ("two words", "x" * 129)),
        *(scheduled(cron=None, rate_minutes=minutes) for minutes in (-1, 527_041)),
        scheduled(cron=None, at="tomorrow"),
        scheduled(timezone="x" * 51),
        scheduled(args={}),
        scheduled(kwargs=[]),
        scheduled(flexible_window_minutes=1_441),
        scheduled(flexible_window_minutes=1) | {"broker": "rabbitmq"},
        {"long_delays": False, "broker": "rabbitmq"},
        {"remote_control": True, "broker": "rabbitmq"},
    ],
    ids=lambda value: str(value)[:40],
)
def test_section_when_it_is_not_what_it_must_be_then_is_refused(breaks):
    assert RULES.problems(changed(breaks))
    assert refused(changed(breaks))


@pytest.mark.parametrize("answers", COMBINATIONS[:: max(1, len(COMBINATIONS) // 24)], ids=label)
def test_contract_when_it_is_baked_then_fits(bake, answers):
    contract = json.loads((bake(**answers) / "contract.json").read_text(encoding="utf-8"))
    assert refused(contract) == set()


def test_contract_when_it_is_baked_then_names_the_schema(bake):
    project = bake(queues="high+default, low")
    contract = json.loads((project / "contract.json").read_text(encoding="utf-8"))
    assert json.loads((project / contract["$schema"]).read_text(encoding="utf-8")) == SCHEMA
    assert refused(contract) == set()


@pytest.mark.parametrize("section", ["", "queue_defaults", "queues", "worker_defaults", "workers"])
def test_field_when_it_is_unknown_then_is_refused(section):
    contract = copy.deepcopy(CONTRACT)
    home = contract[section] if section else contract
    (home[0] if isinstance(home, list) else home)["workers_max"] = 10
    assert refused(contract) == {section}


@pytest.mark.parametrize(
    ("option", "section", "field", "value"),
    [
        ({"broker": "rabbitmq"}, "", "wait_time_seconds", 20),
        ({"broker": "rabbitmq"}, "queue_defaults", "heartbeat_seconds", 0),
        ({"broker": "rabbitmq"}, "queues", "heartbeat_limit_seconds", 43_200),
        ({"compute": "ec2"}, "worker_defaults", "cpu_units", 512),
        ({"compute": "ec2"}, "workers", "memory_mib", 1_024),
        ({"compute": "ecs"}, "worker_defaults", "instance_type", "t4g.small"),
        ({"compute": "ecs"}, "workers", "instance_type", "t4g.small"),
    ],
)
def test_field_when_it_is_of_another_option_then_is_refused(option, section, field, value):
    contract = changed(option)
    assert refused(contract) == set()
    home = contract[section] if section else contract
    (home[0] if isinstance(home, list) else home)[field] = value
    assert refused(contract) == {section}


def test_value_of_the_service_when_it_is_missing_then_is_refused():
    for name in CONTRACT.keys() - {"$schema"}:
        contract = {key: value for key, value in CONTRACT.items() if key != name}
        assert refused(contract), name
