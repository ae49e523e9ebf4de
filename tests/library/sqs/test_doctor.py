"""`doctor` on the emulator: all is well; and each thing that is wrong is found, by its code."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from unittest import mock

import botocore.client
import pytest
from botocore.exceptions import ClientError

from celery_aws.contract import Schedule
from library.commands import Commands
from library.sqs.messages import bodies, celery_body, put
from library.support import CONTRACT, IS_FIFO, contract, module, renamed

pytestmark = pytest.mark.end_to_end

doctor = module("doctor.sqs")
places = module("environment.sqs")
emulated = module("dev.brokers.sqs")


@pytest.fixture
def changed(working):
    """Change attributes of the first queue or its dead-letter queue until the test ends."""
    before = []

    def change(dead=False, **attributes):
        sqs, url = working.client("sqs"), working.url(dead=dead)
        held = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        before.append((url, {name: held.get(name, "") for name in attributes}))
        sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)

    yield change
    for url, attributes in reversed(before):
        working.client("sqs").set_queue_attributes(QueueUrl=url, Attributes=attributes)


def refuse(*actions, status=403, where="", code="AccessDenied"):
    """Let AWS deny actions, as for a missing permission, or fail; for all queues or one."""
    call = botocore.client.BaseClient._make_api_call

    def refused(self, name, parameters):
        if name in actions and parameters.get("QueueUrl", "").endswith(where):
            error, metadata = {"Code": code, "Message": "not authorized"}, {"HTTPStatusCode": status}
            raise ClientError({"Error": error, "ResponseMetadata": metadata}, name)
        return call(self, name, parameters)

    return mock.patch.object(botocore.client.BaseClient, "_make_api_call", refused)


@pytest.mark.parametrize("role", list(doctor.ROLES))
def test_all_is_well(look, working, role):
    commands = Commands(working)
    said = commands.run("doctor", "--role", role, LIVENESS_DIRECTORY=str(working.logs))
    assert "0 failed, 0 could not run" in said
    assert "Recommended" not in commands.errors
    found = json.loads(commands.run("doctor", "--json", LIVENESS_DIRECTORY=str(working.logs)))
    expected = {code for code in doctor.CHECKS if CONTRACT["results"] != "none" or not code.startswith("D4")}
    assert {finding["code"] for finding in found} == expected
    everything = commands.run("doctor", "--all", LIVENESS_DIRECTORY=str(working.logs))
    assert all(len(line) <= 80 for line in everything.splitlines()), everything


def input_of(task, args, group="", of=""):
    """Return the input of a schedule that sends a task to the first queue, or another."""
    queue = of or contract.celery_name(contract.queues[0])
    message = {
        "body": json.dumps([args, {}, {}]),
        "headers": {"task": task},
        "properties": {"delivery_info": {"routing_key": queue}},
    }
    return json.dumps({"MessageBody": json.dumps(message), **({"MessageGroupId": group} if group else {})})


def test_schedules_when_others_than_those_of_the_contract_then_are_found(monkeypatch):
    def of(name, **fields):
        return Schedule(name=name, task="x.y", queue=contract.queues[0].name, **fields)

    known = (of("well", cron="0 6 * * *"), of("other", cron="0 7 * * *"), of("missing", rate_minutes=5))
    known += (of("over", at="2020-01-01T00:00:00"),)
    env = places.Environment(replace(contract, schedules=known), "staging")
    live = {"ScheduleExpressionTimezone": "UTC", "State": "ENABLED", "Target": {"Input": input_of("x.y", [])}}
    found = {
        name: {**live, "ScheduleExpression": f"cron(0 6 ? * {day} *)"} for name, day in (("other", "2"), ("left", "3"))
    }
    found["well"] = {**live, "ScheduleExpression": "cron(0 6 * * ? *)"}
    with mock.patch.object(
        places.Environment, "live_schedules", lambda self: [{"Name": name, **each} for name, each in found.items()]
    ):
        findings = {finding.subject: finding.is_well for finding in doctor._schedules(env)}
        assert findings == {"well": True, "other": False, "missing": False, "over": True, "left": False}
        for wrong in (input_of("x.z", []), input_of("x.y", [1]), input_of("x.y", [], "g"), input_of("x.y", [], of="q")):
            found["well"]["Target"] = {"Input": wrong}
            assert not {finding.subject: finding.is_well for finding in doctor._schedules(env)}["well"]
        none = places.Environment(contract, "staging")
        assert {finding.subject: finding.is_well for finding in doctor._schedules(none)} == dict.fromkeys(found, False)
        found.clear()
        assert [finding.is_well for finding in doctor._schedules(env)] == [True]  # In `make dev`, a beat sends.
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        findings = {finding.subject: finding.is_well for finding in doctor._schedules(env)}
    assert findings == {"well": False, "other": False, "missing": False, "over": True}


def test_looking_leaves_nothing_behind(look, working):
    look()
    look("worker")
    for queue in working.contract.queues:
        assert (working.waiting(queue), working.dead(queue)) == (0, 0)


@pytest.mark.parametrize(
    ("code", "dead", "attributes"),
    [
        ("D203", False, {"VisibilityTimeout": "31"}),
        ("D204", False, {"MessageRetentionPeriod": "61"}),
        ("D205", False, {"ReceiveMessageWaitTimeSeconds": "0"}),
        ("D207", False, {"MaximumMessageSize": "1024"}),
        ("D208", False, {"DelaySeconds": "5"}),
        ("D209", False, {"SqsManagedSseEnabled": "false"}),
        ("D210", True, {"MessageRetentionPeriod": "61"}),
        ("D211", True, {"SqsManagedSseEnabled": "false"}),
    ],
)
def test_attribute_that_differs_is_found(look, changed, code, dead, attributes):
    changed(dead, **attributes)
    found = look()
    assert list(found) == [code]
    assert found[code].is_well is False
    assert found[code].advice


def test_wrong_redrive_policies_are_found(look, changed, working):
    held = working.client("sqs").get_queue_attributes(QueueUrl=working.url(), AttributeNames=["RedrivePolicy"])
    policy = json.loads(held["Attributes"]["RedrivePolicy"])
    changed(RedrivePolicy=json.dumps({**policy, "maxReceiveCount": 99}))
    found = look()
    assert list(found) == ["D206"]
    assert "after 99 receives" in found["D206"].says


@pytest.mark.parametrize(("permission", "is_well"), [("allowAll", True), ("denyAll", False), ("byQueue", False)])
def test_redrive_allow_policies(permission, is_well):
    # moto keeps none.
    place = places.Environment(contract, "development")
    dead = {
        "MessageRetentionPeriod": str(contract.dead_letter_retention_seconds),
        "RedriveAllowPolicy": json.dumps({"redrivePermission": permission, "sourceQueueArns": ["arn:other"]}),
        "KmsMasterKeyId": "alias/own",
    }
    found = doctor._dead_letter_attributes(place, contract.queues[0], {"QueueArn": "arn:own"}, dead)
    assert {finding.code: finding.is_well for finding in found} == {"D210": True, "D211": True, "D212": is_well}


def test_queue_that_is_missing_is_found(working):
    with mock.patch.dict(os.environ, working.environment):
        place = places.Environment(working.contract, "staging")
        found = [finding for finding in doctor.findings(place, "operator") if finding.is_well is False]
        assert {finding.code for finding in found} == {"D201"}
        assert len(found) == len(CONTRACT["queues"])
        assert "staging" in found[0].says
    said = Commands(working).run("doctor", "--environment", "staging", status=1)
    assert "D201" in said


def test_dead_letter_queue_that_is_missing_is_found(look, working):
    name = type(working.contract).dead_letter_queue_name

    def elsewhere(self, queue, environment):
        return name(self, queue, "nowhere" if queue == self.queues[0] else environment)

    with mock.patch.object(type(working.contract), "dead_letter_queue_name", elsewhere):
        found = look()
    assert set(found) == {"D202", "D213"}  # The real one is in this contract no longer.
    assert "nowhere" in found["D202"].says


def named(queue, environment="development", service=CONTRACT["service"]):
    """Return the name at SQS of a queue that the contract does not have."""
    return f"{service}-{environment}-{queue}{'.fifo' if IS_FIFO else ''}"


@pytest.fixture
def orphan(working):
    """Create a queue until the test ends; return what sends to it, and its URL."""
    sqs, urls = working.client("sqs"), []

    def create(name):
        attributes = {"FifoQueue": "true"} if IS_FIFO else {}
        urls.append(sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])

        def send(group):
            fifo = {"MessageGroupId": group, "MessageDeduplicationId": group} if IS_FIFO else {}
            sqs.send_message(QueueUrl=urls[-1], MessageBody="x", **fifo)

        return send, urls[-1]

    yield create
    for url in urls:
        sqs.delete_queue(QueueUrl=url)


def test_orphans_when_a_queue_is_renamed_in_the_contract_are_found(look, working):
    put(working, [celery_body(1)])
    other = renamed(working.contract)
    try:
        with mock.patch.dict(os.environ, working.environment):
            place = places.Environment(other, "development")
            found = [finding for finding in doctor.findings(place, "operator") if finding.is_well is False]
    finally:
        bodies(working, dead=True)
    old = working.queue.name
    assert {(finding.code, finding.subject) for finding in found if finding.code.startswith("D2")} == {
        ("D201", "renamed"),
        ("D213", old),
        ("D213", f"{old} dlq"),
    }
    says = {finding.subject: finding.says for finding in found}
    assert f"{working.queue_name()} is not in the contract; it is empty" in says[old]
    assert f"{working.queue_name(dead=True)} is not in the contract; it holds 1 message (" in says[f"{old} dlq"]


def test_orphan_when_it_holds_messages_is_counted_in_every_state(look, working, orphan):
    send, url = orphan(named("former"))
    sqs = working.client("sqs")
    send("taken")
    sqs.receive_message(QueueUrl=url, VisibilityTimeout=600)
    send("here")
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"DelaySeconds": "600"})
    send("delayed")
    found = look()
    assert list(found) == ["D213"]
    assert found["D213"].is_well is False
    assert "it holds 3 messages (1 waiting, 1 in flight, 1 delayed)" in found["D213"].says
    assert "put the queue back into contract.json" in found["D213"].advice


def test_queue_of_another_service_or_environment_is_no_orphan(look, orphan):
    orphan(named("former", environment="staging"))
    orphan(named("former", service=f"{CONTRACT['service']}x"))
    assert look() == {}


def test_orphans_when_listing_is_denied_are_unknown(look):
    with refuse("ListQueues"):
        found = look()
    assert list(found) == ["D213"]
    assert found["D213"].is_well is None
    assert "lack a permission: ListQueues" in found["D213"].says


def test_orphan_when_counting_is_denied_is_found_without_numbers(look, orphan):
    orphan(named("former"))
    with refuse("GetQueueAttributes", where=named("former")):
        found = look()
    assert list(found) == ["D213"]
    assert f"{named('former')} is not in the contract; its messages could not be counted" in found["D213"].says
    assert "lack a permission: GetQueueAttributes" in found["D213"].says


def test_orphan_when_it_is_deleted_but_still_listed_is_none(look, orphan):
    orphan(named("former"))
    with refuse("GetQueueAttributes", where=named("former"), code="AWS.SimpleQueueService.NonExistentQueue"):
        assert look() == {}


@pytest.mark.parametrize("action", doctor.PROBES)
def test_right_that_is_missing_is_found(look, action):
    with refuse(action):
        found = look()
    assert list(found) == ["D301"]
    assert f"operator may not {action}" in found["D301"].says


def test_variables_of_elsewhere_are_found(look):
    found = look(
        QUEUE_URL_BASE="https://sqs.mars-north-1.amazonaws.com/999999999999", AWS_DEFAULT_REGION="mars-south-1"
    )
    assert set(found) == {"D102", "D103"}


@pytest.fixture
def controlled(working):
    """The contract of the running service with remote control, and its table."""
    having = replace(working.contract, remote_control=True)
    with mock.patch.dict(os.environ, working.environment):
        created = emulated._create_control_table(having, "development")
    yield having
    working.client("dynamodb").delete_table(TableName=created["CONTROL_TABLE"])


def test_table_of_remote_control_when_it_can_be_used_then_is_well(look, working, controlled):
    assert look(contract=controlled) == look("worker", controlled) == look("producer", controlled) == {}
    table = controlled.control_table_name("development")
    assert working.client("dynamodb").scan(TableName=table)["Items"] == []  # Nothing is left behind.


def test_table_of_remote_control_when_it_does_not_exist_then_is_found(look, working):
    found = look(contract=replace(working.contract, remote_control=True))
    assert [(finding.code, finding.is_well) for finding in found.values()] == [("D215", False)]


@pytest.mark.parametrize(("action", "code"), [("Query", "D215"), ("PutItem", "D301"), ("DeleteItem", "D301")])
def test_table_of_remote_control_when_a_permission_is_missing_then_is_found(look, controlled, action, code):
    with refuse(action, code="AccessDeniedException"):
        found = look(contract=controlled)
    assert list(found) == [code]
    assert action in found[code].says


def test_credentials_that_are_none_are_found(working):
    commands = Commands(working)
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONFIG_FILE": "/dev/null"}
    said = commands.run("doctor", AWS_SHARED_CREDENTIALS_FILE="/dev/null", **nothing, status=2)
    assert "D101" in said
    with mock.patch.dict(os.environ, working.environment), refuse("GetCallerIdentity"):
        place = places.Environment(working.contract, "development")
        (finding,) = doctor.findings(place, "operator")
    assert (finding.code, finding.is_well) == ("D101", False)
    with mock.patch.dict(os.environ, working.environment), refuse("GetCallerIdentity", status=503):
        place = places.Environment(working.contract, "development")
        (finding,) = doctor.findings(place, "operator")
    assert (finding.code, finding.is_well) == ("D101", None)


def test_worker_that_does_not_poll_is_found(look, tmp_path):
    found = look(LIVENESS_DIRECTORY=str(tmp_path))
    expected = {"D501"} if any(worker.min for worker in contract.workers) else set()
    assert set(found) == expected


@pytest.mark.skipif(CONTRACT["results"] == "none", reason="there is no result store")
def test_result_store_that_is_elsewhere_is_found(look):
    name, value = {
        "s3": ("RESULTS_BUCKET", "no-such-bucket"),
        "dynamodb": ("RESULTS_TABLE", "no-such-table"),
    }.get(CONTRACT["results"], ("RESULTS_URL", "rediss://:secret-word@127.0.0.1:9/0"))
    found = look(**{name: value})
    assert list(found) == ["D401"]
    assert found["D401"].is_well is False
    assert "secret-word" not in str(found)
    assert look(**{name: ""})["D401"].is_well is None
