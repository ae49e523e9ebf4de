"""Messages are read in every encoding that the service, or an older version of it, sends."""

from __future__ import annotations

import base64
import json
import time
from unittest import mock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from celery import Celery
from kombu import Queue

from library.support import module

messages = module("dlq.sqs.messages")
dlq_queue = module("dlq.sqs.queue")


def sent(body_encoding="base64", outer=True, **conf):
    """Return the body of a message as kombu's own transport would send it."""
    app = Celery("other", broker="sqs://")
    app.conf.broker_transport_options = {
        "region": "eu-west-1",
        "predefined_queues": {
            "celery": {"url": "http://127.0.0.1:9/1/celery"},
        },
        "body_encoding": body_encoding,
        "sqs_base64_encoding": outer,
    }
    app.conf.update(task_queues=[Queue("celery", no_declare=True)], task_default_queue="celery", **conf)
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        client = mock.Mock()
        channel.sqs = lambda **_: client
        app.send_task("a.tasks.high.do", ({"k": "ü"},), {"b": [1]}, task_id="id-1", connection=connection, retries=2)
    return client.send_message.call_args.kwargs["MessageBody"]


@pytest.mark.parametrize(
    "options",
    [
        {},  # kombu's default: base64 twice.
        {"body_encoding": None},
        {"outer": False},
        {"body_encoding": None, "outer": False},
        {"task_compression": "gzip"},
        {"task_compression": "gzip", "outer": False},
    ],
    ids=str,
)
def test_every_encoding(options):
    call = messages.decode(sent(**options))
    assert (call.task, call.task_id, call.retries) == ("a.tasks.high.do", "id-1", 2)
    assert (json.loads(call.args), json.loads(call.kwargs)) == ([{"k": "ü"}], {"b": [1]})


def test_what_the_service_itself_sends():
    app = module("service").app()
    seen = []
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        client = mock.Mock(send_message=lambda **message: seen.append(message["MessageBody"]) or {"MessageId": "1"})
        channel.sqs = lambda **_: client
        queue = app.contract.celery_name(app.contract.queues[0])
        options = {"queue": queue, "MessageGroupId": "g", "connection": connection}
        # Some result stores would be asked first, and nothing answers here.
        app.send_task("some.task", ("x",), task_id="1", ignore_result=True, **options)
    call = messages.decode(seen[0])
    assert (call.task, call.task_id, call.args, call.kwargs) == ("some.task", "1", '["x"]', "{}")


def test_message_of_another_language_then_needs_no_properties():
    call = messages.decode(json.dumps({"headers": {"task": "a.b", "id": "1"}, "body": "[[7], {}, {}]"}))
    assert (call.task, call.task_id, call.args, call.kwargs) == ("a.b", "1", "[7]", "{}")


FOREIGN = [
    "plain text",
    "",
    "{}",
    "[1, 2]",
    '"text"',
    json.dumps({"Records": [{"eventSource": "aws:s3"}]}),
    json.dumps({"task": "a.b", "id": "1", "kwargs": {}, "args": []}),
    json.dumps({"properties": {}, "headers": {"id": "1"}, "body": "x"}),
    json.dumps({"headers": {"task": "a.b"}, "properties": "x"}),
    base64.b64encode(b"\xff\x00").decode(),
    "[" * 100_000,
]


@pytest.mark.parametrize("body", FOREIGN, ids=lambda body: body[:20])
def test_foreign_messages_are_told_apart(body):
    assert messages.decode(body) is None


@pytest.mark.parametrize("content", ["!", "e30=", 7, None, [], ["x"], {}])
def test_arguments_that_cannot_be_read_are_no_reason_to_fail(content):
    envelope = {
        "properties": {"body_encoding": "base64"},
        "headers": {"task": "a.b", "id": "1", "retries": "x", "argsrepr": "('a',)"},
        "body": content,
    }
    call = messages.decode(json.dumps(envelope))
    assert (call.task, call.args, call.kwargs, call.retries) == ("a.b", "('a',)", "cannot be decoded", 0)


def test_exported_line_is_the_message_byte_for_byte():
    data = {
        "MessageId": "m",
        "ReceiptHandle": "r",
        "Body": 'not "json" \t\r\n \u2028 漢 \U0001f370 \ufffd',
        "Attributes": {
            "SentTimestamp": "1700000000123",
            "ApproximateReceiveCount": "3",
            "MessageGroupId": "g",
            "MessageDeduplicationId": "d",
        },
        "MessageAttributes": {
            "text": {"DataType": "String", "StringValue": "ü\n"},
            "kind": {"DataType": "Number.int", "StringValue": "7"},
            "bytes": {"DataType": "Binary.gif", "BinaryValue": bytes(range(256))},
        },
    }
    message = messages.received(data)
    again = messages.imported(json.dumps(message.exported()))
    for name in ("message_id", "body", "attributes", "group", "deduplication_id", "sent_at_seconds", "receive_count"):
        assert getattr(again, name) == getattr(message, name)


@pytest.mark.parametrize(("attempt", "count"), [("5", 5), ("", 2), ("many", 2), ("-1", 2)])
def test_deliveries_are_those_that_the_worker_counted(attempt, count):
    value, system = {"DataType": "String", "StringValue": attempt}, {"ApproximateReceiveCount": "2"}
    data = {"MessageId": "m", "ReceiptHandle": "r", "Body": "", "Attributes": system}
    told = {"FailureAttempt": value} if attempt else {}
    assert messages.received({**data, "MessageAttributes": told}).receive_count == count


def test_reason_of_an_earlier_death_is_not_told_as_that_of_this_one():
    value = {"DataType": "String", "StringValue": "5"}
    told = {"FailureAttempt": value, "own": value}
    data = {"MessageId": "m", "ReceiptHandle": "r", "Body": "", "MessageAttributes": told}
    by_sqs = {"ApproximateReceiveCount": "2", "DeadLetterQueueSourceArn": "arn:aws:sqs:eu-west-1:123456789012:high"}
    message = messages.received({**data, "Attributes": by_sqs})
    assert (message.failure("Attempt"), message.receive_count, list(message.attributes)) == ("", 2, ["own"])
    message = messages.received(data)
    assert (message.failure("Attempt"), message.receive_count) == ("5", 5)


@pytest.mark.parametrize("line", ["", "{", "[]", "{}", '{"attributes": {}, "body": 1}'])
def test_a_line_that_is_none_is_refused(line):
    with pytest.raises(ValueError, match="not a line of `dlq export`"):
        messages.imported(line)


@pytest.mark.parametrize(
    ("error", "requests"),
    [
        (EndpointConnectionError(endpoint_url="x"), range(1, 50)),
        (ClientError({}, "ChangeMessageVisibilityBatch"), [300]),
    ],
    ids=["no network", "refused"],
)
def test_giving_back_ends_where_there_is_no_network(error, requests):
    def fail(**_):
        time.sleep(0.01)
        raise error

    sqs = mock.Mock()
    sqs.change_message_visibility_batch.side_effect = fail
    with dlq_queue.Peek(sqs, "url", 3_000) as peek:
        peek._held.update({str(number): "handle" for number in range(3_000)})
    assert sqs.change_message_visibility_batch.call_count in requests
