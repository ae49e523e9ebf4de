"""Delayed tasks that no queue can hold, on standard and FIFO queues: one-time schedules, and what they send."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from unittest import mock

import celery
import pytest
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.exceptions import ClientError, EndpointConnectionError
from kombu.utils.uuid import uuid

from celery_aws.errors import (
    CountdownTooLongError,
    MessageTooLargeError,
    NotAllSentError,
    SettingsError,
    UnsupportedDelayError,
)
from library.commands import Commands
from library.sqs.messages import celery_body
from library.support import HAS_RESULTS, eventually, module, notes, running_service

delays = module("brokers.sqs.delays")

DAYS = 3 * 86_400
GROUP = {"MessageGroupId": "g"}
PLACE = delays.Scheduler("group", "arn:aws-us-gov:iam::123456789012:role/r", "arn:dead", "")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service with long delays, and a clock of the emulated scheduler that can be moved."""
    folder = tmp_path_factory.mktemp("delays")
    clock = folder / "clock"
    clock.write_text("0")
    with (
        mock.patch.dict(os.environ, EMULATED_TIME_FILE=str(clock)),
        running_service(folder, long_delays=True) as service,
    ):
        service.clock = clock
        yield service


@pytest.fixture(autouse=True)
def cleared(service):
    """Leave no schedule and no message to the next test."""
    yield
    service.clock.write_text("0")
    for each in schedules(service):
        service.client("scheduler").delete_schedule(Name=each["Name"], GroupName=each["GroupName"])
    sqs, url = service.client("sqs"), service.url()
    while found := sqs.receive_message(QueueUrl=url, WaitTimeSeconds=0, MaxNumberOfMessages=10).get("Messages"):
        for message in found:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert service.waiting() == 0


def schedules(service):
    """Return the schedules of delayed tasks, whole."""
    client, group = service.client("scheduler"), service.contract.schedule_group_name("development", delayed=True)
    found = []
    for each in client.list_schedules(GroupName=group)["Schedules"]:
        with contextlib.suppress(client.exceptions.ResourceNotFoundException):  # Sent and deleted meanwhile.
            found.append(client.get_schedule(Name=each["Name"], GroupName=group))
    return found


def sent_by(schedule):
    """Return the SendMessage request of a schedule, and its message."""
    request = json.loads(schedule["Target"]["Input"])
    return request, json.loads(request["MessageBody"])


def test_task_when_delayed_for_days_then_is_sent_when_due_and_runs_once(service, tmp_path):
    result = service.send("stay", str(tmp_path), 0, countdown=DAYS, task_id="delayed")
    (schedule,) = schedules(service)
    due = datetime.strptime(schedule["ScheduleExpression"], "at(%Y-%m-%dT%H:%M:%S)").replace(tzinfo=timezone.utc)
    assert due.second == 0
    assert -5 < (due - datetime.now(timezone.utc)).total_seconds() - DAYS <= 60
    assert schedule["ActionAfterCompletion"] == "DELETE"
    request, message = sent_by(schedule)
    assert request["QueueUrl"] == service.url()
    assert "DelaySeconds" not in request
    assert message["headers"]["eta"] is None
    assert message["headers"]["scheduled_time"] == due.strftime("%Y-%m-%dT%H:%M:%SZ")
    service.start_worker().kill()
    service.clock.write_text(str(DAYS - 120))
    assert not eventually(lambda: service.waiting(), 1)
    service.clock.write_text(str(DAYS + 120))
    assert eventually(lambda: not schedules(service))
    service.start_worker()
    assert eventually(lambda: len(notes(tmp_path)) == 1)
    if HAS_RESULTS:
        with service.reached():
            result.get(timeout=10)
    assert eventually(lambda: not service.waiting())
    assert len(notes(tmp_path)) == 1
    service.stop_workers()


def test_task_when_it_has_expired_meanwhile_then_is_revoked(service, tmp_path):
    task_id = uuid()
    service.send("stay", str(tmp_path), 0, countdown=DAYS, task_id=task_id, expires=0.1)
    service.clock.write_text(str(DAYS + 120))
    service.start_worker()
    assert eventually(lambda: f'"task_id": "{task_id}"' in service.log() and '"outcome": "revoked"' in service.log())
    assert notes(tmp_path) == []
    service.stop_workers()


def test_time_when_a_delay_is_short_then_is_a_minute_from_now_at_least():
    for seconds in (0, 1, 59.5, 60, 61, 3_600):
        before = datetime.now(timezone.utc)
        due = datetime.fromisoformat(f"{delays.scheduled_time('t', seconds)}+00:00")
        assert max(60, seconds) <= (due - before).total_seconds() < max(60, seconds) + 61


def test_message_when_sent_twice_then_has_one_task_id(service, tmp_path):
    """The scheduler is killed after it has sent, and before it has deleted the schedule."""
    service.send("stay", str(tmp_path), 0, countdown=DAYS)
    (schedule,) = schedules(service)
    first, second = sent_by(schedule), sent_by(schedule)
    assert first[1]["headers"]["id"] == second[1]["headers"]["id"]
    if service.queue.fifo:
        with service.reached():
            for request, _ in (first, second):
                service.client("sqs").send_message(**request)
        assert service.waiting() == 1


def test_sender_when_it_tries_again_then_there_is_one_schedule(service, tmp_path, caplog):
    task_id = "order/7"  # No name of a schedule.
    for countdown in (DAYS, DAYS + 1):
        with caplog.at_level(logging.WARNING):
            service.send("stay", str(tmp_path), 0, countdown=countdown, task_id=task_id)
    (schedule,) = schedules(service)
    assert sent_by(schedule)[1]["headers"]["id"] == task_id
    assert schedule["Name"] in caplog.text


def test_delay_when_the_queue_can_hold_it_then_makes_no_schedule(service, tmp_path):
    longest = service.app.longest_countdown_seconds(service.queue)
    with mock.patch.object(module("brokers.sqs.transport").Channel, "sqs") as sqs:
        service.send("stay", str(tmp_path), 0, countdown=longest)
    assert sqs.return_value.send_message.call_count == 1
    assert schedules(service) == []
    service.send("stay", str(tmp_path), 0, countdown=longest + 1)
    assert len(schedules(service)) == 1


def test_chord_when_a_task_is_delayed_for_longer_than_results_are_kept_then_is_refused(service, tmp_path):
    part, body = (service.probe("return_given", "x") for _ in range(2))
    chord = celery.chord([part, part.clone().set(countdown=service.contract.result_expires_seconds + 60)], body)
    with service.reached(), pytest.raises(CountdownTooLongError, match="chord"):
        chord.apply_async(**GROUP)
    whole = celery.chord([part, part.clone()], body)
    with service.reached():
        for late in (whole.clone().set(countdown=DAYS), whole):
            with pytest.raises(CountdownTooLongError, match="chord"):
                late.apply_async(**GROUP, **({} if late.options.get("countdown") else {"countdown": DAYS}))
    assert (schedules(service), service.waiting()) == ([], 0)
    with service.reached():
        celery.chain(part, body).apply_async(countdown=DAYS, **GROUP)
    assert len(schedules(service)) == 1


def test_message_when_one_cannot_be_sent_again_then_the_others_are(service):
    dead_letters = service.contract.schedule_dead_letter_queue_name("development")
    sqs = service.client("sqs")
    url = sqs.get_queue_url(QueueName=dead_letters)["QueueUrl"]
    for number, to in enumerate((service.url(), f"{service.url()}-gone", service.url())):
        unsent = {"QueueUrl": to, "MessageBody": celery_body(number), "MessageGroupId": "g"}
        unsent |= {"MessageDeduplicationId": str(number)} if service.queue.fifo else {}
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps(unsent))
    commands = Commands(service)
    assert commands.run("delayed", "unsent", "--resend", status=1).count("resent ") == 2
    assert "stays where it is" in commands.errors
    assert service.waiting() == 2
    sqs.purge_queue(QueueUrl=url)


def test_unsent_when_the_environment_does_not_exist_then_names_its_queue(service):
    commands = Commands(service)
    commands.run("delayed", "unsent", "--environment", "prodution", status=2)
    assert service.contract.schedule_dead_letter_queue_name("prodution") in commands.errors


def test_message_when_it_is_binary_then_is_refused(service, tmp_path):
    attributes = {"a": {"DataType": "Binary", "BinaryValue": b"\xff"}}
    with pytest.raises(UnsupportedDelayError, match="binary"), service.reached():
        service.probe("return_given", "x").apply_async(countdown=DAYS, message_attributes=attributes, **GROUP)
    assert schedules(service) == []


def test_eta_expires_and_arguments_are_those_of_the_sender(service, tmp_path):
    eta = datetime.now(timezone.utc) + timedelta(days=400)
    text = "<aws.scheduler.execution-id> & ü"
    service.send("return_given", text, eta=eta, expires=eta + timedelta(days=1))
    (schedule,) = schedules(service)
    assert "<aws" not in schedule["Target"]["Input"]
    _, message = sent_by(schedule)
    assert json.loads(message["body"])[0] == [text]
    assert message["headers"]["expires"] > eta.isoformat()


def test_task_when_it_retries_in_days_then_is_scheduled_for_each_retry(service, tmp_path):
    task_id = uuid()
    service.start_worker()
    service.send("retry_in", str(tmp_path), DAYS, task_id=task_id)
    assert eventually(lambda: len(schedules(service)) == 1)
    service.stop_workers()
    (schedule,) = schedules(service)
    assert schedule["Name"] == f"{task_id}.1-0"
    assert sent_by(schedule)[1]["headers"]["retries"] == 1


def test_batch_when_some_are_delayed_then_all_are_sent_at_its_end(service, tmp_path):
    with service.reached(), service.app.batching():
        for number in range(3):
            service.probe("stay", str(tmp_path), 0, group=f"g{number}").apply_async(countdown=DAYS if number else None)
        assert schedules(service) == []
    assert len(schedules(service)) == 2
    assert service.waiting() == 1
    with service.reached(), pytest.raises(KeyError), service.app.batching():
        service.probe("stay", str(tmp_path), 0).apply_async(countdown=DAYS)
        raise KeyError
    assert len(schedules(service)) == 2


def refusing(code):
    """Return a patch with which EventBridge Scheduler refuses every schedule."""
    error = ClientError({"Error": {"Code": code, "Message": "slow down"}}, "CreateSchedule")
    return mock.patch.object(delays, "create", side_effect=error)


def test_schedule_when_refused_then_is_an_error_of_the_sender(service, tmp_path):
    with refusing("ThrottlingException"), pytest.raises(ClientError, match="slow down"):
        service.send("stay", str(tmp_path), 0, countdown=DAYS)
    with (
        service.reached(),
        refusing("ServiceQuotaExceededException"),
        pytest.raises(NotAllSentError) as raised,
        service.app.batching(),
    ):
        service.probe("stay", str(tmp_path), 0).apply_async(countdown=DAYS, task_id="first")
    assert [task_id for task_id, _, _ in raised.value.failed] == ["first"]


def test_creation_when_the_connection_fails_then_the_retry_is_delayed(service, tmp_path):
    broken = EndpointConnectionError(endpoint_url="https://scheduler.eu-west-1.amazonaws.com")
    with mock.patch.object(delays, "create", side_effect=[broken, mock.DEFAULT], wraps=delays.create) as create:
        service.send("stay", str(tmp_path), 0, countdown=DAYS)
    assert create.call_count == 2
    assert len(schedules(service)) == 1
    assert service.waiting() == 0


def test_creation_when_throttled_then_is_tried_again(service):
    with service.reached(), service.app.connection_for_write() as connection:
        channel = connection.default_channel
        place = channel.transport_options["scheduler"]
        parameters = delays.request(place, {"headers": {"id": "throttled"}}, service.url(), {}, "2030-01-01T00:00:00")
        channel.create_schedule(parameters)  # For the client.
        answers = []

        def throttle(request, **rest):
            answers.append(request)
            if len(answers) < 3:
                body = b'{"Message": "slow down"}'
                headers = {"x-amzn-errortype": "ThrottlingException", "content-type": "application/json"}
                return AWSResponse(request.url, 429, HeadersDict(headers), RawBytes(body))
            return None

        channel._scheduler.meta.events.register("before-send.scheduler.CreateSchedule", throttle)
        channel.create_schedule({**parameters, "Name": "again"})
    assert len(answers) == 3
    assert {each["Name"] for each in schedules(service)} == {parameters["Name"], "again"}


class RawBytes(io.BytesIO):
    """The body of a response of botocore."""

    def stream(self):
        yield self.read()


def test_delay_when_no_schedule_can_be_so_late_then_is_refused(service, tmp_path):
    for countdown in (200 * 366 * 86_400, 1e12):
        with pytest.raises(CountdownTooLongError, match="2199"):
            service.send("stay", str(tmp_path), 0, countdown=countdown)


def test_delay_when_the_contract_does_not_allow_it_then_is_refused_and_the_way_is_named(service):
    with service.reached():
        app = module("app").build(replace(service.contract, long_delays=False), module("settings").Settings)
        queue = service.contract.celery_name(service.queue)
        with pytest.raises(CountdownTooLongError, match="long_delays"):
            app.send_task("some.task", countdown=DAYS, MessageGroupId="g", queue=queue)
    assert schedules(service) == []


def test_request_when_too_large_then_is_refused_with_its_size():
    message = {"headers": {"id": "1", "task": "t"}}
    made = {"MessageBody": "<" * 50_000}
    with pytest.raises(MessageTooLargeError, match="t was not sent"):
        delays.request(PLACE, message, "url", made, "2030-01-01T00:00:00")
    fitting = delays.request(PLACE, message, "url", {"MessageBody": "<" * 40_000}, "2030-01-01T00:00:00")
    assert fitting["Target"]["Arn"] == "arn:aws-us-gov:scheduler:::aws-sdk:sqs:sendMessage"


def test_settings_when_the_role_is_missing_then_name_it_with_all_others(monkeypatch):
    for name in ("ENVIRONMENT", "QUEUE_URL_BASE", "SCHEDULER_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    contract = module("contract").parse({**RAW, "long_delays": True})
    with pytest.raises(SettingsError) as refused:
        module("app").build(contract, module("settings").Settings)
    for name in ("ENVIRONMENT", "QUEUE_URL_BASE", "SCHEDULER_ROLE_ARN"):
        assert f"{name}: Field required" in str(refused.value)


RAW = json.loads((module("dev.emulator").PROJECT / "contract.json").read_text(encoding="utf-8"))
