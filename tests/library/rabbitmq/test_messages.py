"""Messages are read as the service, or whoever else, sends them; and kept, byte for byte."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from decimal import Decimal
from unittest import mock

import pytest
from kombu import compression

from library.support import module

messages = module("dlq.rabbitmq.messages")
contract = module("service").contract()
QUEUE = contract.queues[0]


def received(body=b"", headers=None, **properties):
    """Read a message."""
    if headers is not None:
        properties["application_headers"] = headers
    return messages.received(7, mock.Mock(body=body, properties=properties), QUEUE)


@pytest.mark.parametrize("packed", ["", "gzip", "zlib"])
def test_what_celery_sends(packed):
    body = json.dumps([[{"k": "ü"}], {"b": [1]}, {"chord": None}]).encode()
    headers = {"task": "a.tasks.high.do", "id": "id-1", "retries": 2, "MessageGroupId": "g"}
    if packed:
        body, headers["compression"] = compression.compress(body, packed)
    message = received(body, headers)
    call = message.call
    assert (call.task, call.task_id, call.retries, message.group) == ("a.tasks.high.do", "id-1", 2, "g")
    assert (json.loads(call.args), json.loads(call.kwargs)) == ([{"k": "ü"}], {"b": [1]})


@pytest.mark.parametrize("body", [b"", "", b"{}", b"\xff", b"[" * 100_000], ids=lambda body: body[:9])
def test_foreign_messages_are_told_apart(body):
    assert received(body).call is None
    assert received(body, {"task": 7}).call is None
    assert received(body, {"task": "a.b", "argsrepr": "('a',)"}).call.args == "('a',)"
    assert len(received(body).id) == 32
    assert received(body, message_id="mine").id == "mine"


def test_when_it_was_sent_is_known_or_not():
    assert received(timestamp=1_700_000_000).sent_at_seconds == 1_700_000_000
    died = datetime(2026, 1, 2, tzinfo=timezone.utc)
    death = [{"reason": "expired", "time": died.replace(tzinfo=None)}]
    assert received(headers={"x-death": death}).sent_at_seconds == died.timestamp()
    assert received().age_seconds is None


@pytest.mark.parametrize(
    ("headers", "count", "reason"),
    [
        ({"FailureException": "ValueError('no')", "x-earlier-deliveries": 2}, 2, "ValueError('no')"),
        ({"x-death": [{"reason": "delivery_limit"}]}, QUEUE.max_receive_count, "its worker died in each of"),
        ({"x-death": [{"reason": "rejected"}], "x-earlier-deliveries": 1}, QUEUE.max_receive_count, "received"),
        ({"x-death": [{"reason": "expired"}, {"reason": "rejected"}]}, 0, "waited longer than"),
        ({"x-death": "nonsense", "x-earlier-deliveries": "nonsense"}, 0, "received 0 times"),
        ({"x-delivery-count": 99}, 0, "received 0 times"),
    ],
)
def test_deliveries_and_reason(headers, count, reason):
    message = received(b"[[], {}, {}]", {"task": "a.b", **headers})
    assert message.receive_count == count
    assert message.reason.startswith(reason)


def test_exported_line_is_the_message_byte_for_byte():
    headers = {
        "task": "a.b",
        "text": "ü\n",
        "table": {"$time": "not ours"},
        "deep": [1, 2.5, True, None, {"$base64": {"$table": 1}, "more": b"\xff"}],
        "time": datetime(2026, 1, 2, 3, 4, 5),
        "price": Decimal("-1.50"),
    }
    for body in (b'not "json" \t\r\n \xe2\x80\xa8', bytes(range(256)), b""):
        message = received(body, headers, timestamp=1_700_000_000, priority=3, correlation_id="c")
        again = messages.imported(json.dumps(message.exported()))
        for name in ("message_id", "body", "headers", "properties", "group", "sent_at_seconds", "receive_count"):
            assert getattr(again, name) == getattr(message, name)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"headers": [], "properties": {}, "receive_count": 1, "body": "x"}',
        '{"headers": {}, "properties": {}, "receive_count": 1, "body": 1}',
        '{"headers": {"x": {"$time": "soon"} }, "properties": {}, "receive_count": 1, "body": ""}',
    ],
)
def test_a_line_that_is_none_is_refused(line):
    with pytest.raises(ValueError, match="not a line of `dlq export`"):
        messages.imported(line)


def test_sent_on_it_is_as_if_new():
    kept = {"task": "a.b", "id": "1", "MessageGroupId": "g", "mine": 1}
    told = dict.fromkeys(("x-death", "x-first-death-queue", "x-earlier-deliveries", "FailureException", "CC"), "x")
    assert received(b"", {**kept, **told}).headers_to_resend() == kept
