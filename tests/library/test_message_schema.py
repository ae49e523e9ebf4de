"""The JSON schema of messages accepts what producers send and workers run, and refuses what workers refuse."""

from __future__ import annotations

import gc
import json
from datetime import datetime, timedelta, timezone

import pytest
from celery import chain, chord, group
from celery.exceptions import InvalidTaskError
from celery.utils.time import maybe_iso8601
from jsonschema import Draft7Validator

from library.support import BROKER, CHASSIS, HAS_RESULTS, IS_FIFO, broker, module

headers = module("headers")
SCHEMA = json.loads((CHASSIS / "message.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft7Validator(SCHEMA)
FIELDS = SCHEMA["properties"]["headers"]["properties"]
GOOD = {"task": "name", "id": "1"}

VALUES = [
    *(None, True, False, 0, 1, 2, -1, 1.5, "", "x", {}, {"a": 1}, [], ["x"], [""], [7]),
    *([1, None], [None, 2.5], [True, 1], [1, 2, 3], [-1, None]),
    *({"task": "x"}, {"task": ""}, {"task": "x", "args": 7}),
    *([{"task": "x", "args": [1], "kwargs": {"a": 1}, "options": {}}], [{"task": 7}], [{"task": "x", "kwargs": "a"}]),
]
BODIES = [
    7,
    "abc",
    None,
    {},
    [],
    [[], {}],
    [[], {}, {}, {}],
    [{}, {}, {}],
    [[], [], {}],
    [[], {}, []],
    [[], {}, {"id": "2"}],
]


def is_run(fields, body):
    """Tell whether the worker accepts headers and a body."""
    try:
        headers.check(fields, body)
    except InvalidTaskError:
        return False
    return True


def test_schema_when_checked_then_is_valid_and_has_every_field():
    Draft7Validator.check_schema(SCHEMA)
    assert set(FIELDS) == {*headers.RULES, "compression"}
    assert set(SCHEMA["properties"]["body"]["items"][2]["properties"]) == headers.FOLLOWING
    assert set(SCHEMA["properties"]["headers"]["required"]) == set(headers.REQUIRED)
    assert set(SCHEMA["properties"]["headers"]["propertyNames"]["not"]["enum"]) == headers.RESERVED


@pytest.mark.parametrize("field", headers.RULES)
def test_field_when_a_worker_accepts_it_then_the_schema_does(field):
    is_time = "time" in FIELDS[field].get("$ref", "")
    for value in (value for value in VALUES if not (is_time and isinstance(value, str))):
        fields = {**GOOD, field: value}
        assert VALIDATOR.is_valid({"headers": fields, "body": [[], {}, {}]}) == is_run(fields, [[], {}, {}]), value
        following = [[], {}, {field: value}]
        assert VALIDATOR.is_valid({"headers": GOOD, "body": following}) == is_run(GOOD, following), value
    missing = {name: value for name, value in GOOD.items() if name != field}
    assert VALIDATOR.is_valid({"headers": missing, "body": [[], {}, {}]}) == is_run(missing, [[], {}, {}])


@pytest.mark.parametrize("body", BODIES, ids=str)
def test_body_when_a_worker_refuses_it_then_the_schema_does(body):
    assert not VALIDATOR.is_valid({"headers": GOOD, "body": body})
    assert not is_run(GOOD, body)


@pytest.mark.parametrize(
    "text", ["2027-01-31T06:30:00Z", "2027-01-31T06:30:00.123Z", "2027-01-31T06:30:00.123456+02:00"]
)
def test_time_when_the_schema_accepts_it_then_celery_reads_it(text):
    assert VALIDATOR.is_valid({"headers": {**GOOD, "eta": text}, "body": [[], {}, {}]})
    assert maybe_iso8601(text).tzinfo


@pytest.mark.parametrize("text", ["", "soon", "2027-01-31", "1770000000", "2027-01-31T06:30:00", "2027-01-31 06:30Z"])
def test_time_when_it_is_no_time_with_a_zone_then_the_schema_refuses_it(text):
    assert not VALIDATOR.is_valid({"headers": {**GOOD, "eta": text}, "body": [[], {}, {}]})


def send_everything(service):
    """Send messages with every field that Celery and this library know."""
    probe, later = service.probe, datetime.now(timezone.utc) + timedelta(hours=1)
    step = probe("return_given", {"deep": [None, 1.5, "\u00fc"]})
    step.apply_async(countdown=0 if IS_FIFO else 1, expires=later, time_limit=5, soft_time_limit=2.5, shadow="other")
    step.apply_async(link=step.clone(), link_error=step.clone(), ignore_result=True, headers={"own": "field"})
    chain(step, step.clone(), group([step.clone(), step.clone()])).apply_async()
    group([step, step.clone()]).apply_async(MessageGroupId="g")
    stamped = step.clone()
    stamped.stamp(tenant="seven")
    stamped.apply_async()
    if HAS_RESULTS:
        chord([step, step.clone()], step.clone(), app=service.app).apply_async(MessageGroupId="g")


def test_messages_when_sent_by_the_service_then_the_schema_accepts_them(quiet, monkeypatch):
    with quiet.reached():
        # Results that nobody reads would look for their backend when it has ended.
        monkeypatch.setattr(quiet.app.backend, "add_pending_result", lambda result, *_, **__: result, raising=False)
        monkeypatch.setattr(quiet.app.backend, "remove_pending_result", lambda result: result, raising=False)
        send_everything(quiet)
        gc.collect()
    found = broker.received(quiet)
    assert len(found) >= 6
    assert max(len(message["headers"]) for message in found) > 15
    for message in found:
        problems = [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(message)]
        assert problems == [], (BROKER, message)
