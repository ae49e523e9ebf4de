"""How long messages stay invisible, number by number."""

from __future__ import annotations

import gc
import time
import weakref
from types import SimpleNamespace

import pytest

from library.support import module

transport = module("brokers.sqs.transport")

RULES = {
    "visibility_timeout_seconds": 100,
    "heartbeat_seconds": 30,
    "heartbeat_limit_seconds": 250,
}


def message(**info):
    """Return a message that was received."""
    return SimpleNamespace(delivery_info={"routing_key": "q", "sqs_queue": "url", **info})


@pytest.fixture
def channel(monkeypatch):
    """A channel that notes its requests, and consumes from `q`."""
    made = transport.Channel.__new__(transport.Channel)
    made.asked = []
    made._consumers_of = {"q": ("tag", None)}
    made._waiting = set()
    made._dead_lettering = {}
    made.hub = None
    made.request = lambda operation, parameters, then: made.asked.append((operation, parameters))
    monkeypatch.setattr(transport.Channel, "predefined_queues", {"q": RULES})
    return made


def test_heartbeat_never_goes_past_its_limit(channel):
    """A message held for 0, 200 and 260 seconds gets 100 seconds, the 50 that are left, and none."""
    now = time.monotonic()
    held = {f"held-{seconds}": message(received_at=now - seconds) for seconds in (0, 200, 260)}
    held["of another queue"] = message(received_at=now, routing_key="other")
    channel._qos = transport.QoS(channel)
    for tag, of in {**held, "done": held["held-0"]}.items():
        channel.qos.append(of, tag)
    channel.qos.ack("done")
    channel.extend_visibility("q")
    ((operation, parameters),) = channel.asked
    seen = {entry["ReceiptHandle"]: entry["VisibilityTimeout"] for entry in parameters["Entries"]}
    assert operation == "ChangeMessageVisibilityBatch"
    assert seen.keys() == {"held-0", "held-200"}
    assert 99 <= seen["held-0"] <= 100
    assert 49 <= seen["held-200"] <= 50


@pytest.mark.parametrize(("consuming", "seconds"), [(True, 7), (False, 0)], ids=["working", "stopping"])
def test_released_message_is_redelivered_after_its_backoff_but_at_once_when_the_worker_stops(
    channel, consuming, seconds
):
    held = message(release_after_seconds=7)
    channel._qos = SimpleNamespace(get=lambda tag: held, reject=lambda tag, requeue: None)
    channel._consumers_of = {"q": ("tag", None)} if consuming else {}
    channel.basic_reject("tag", requeue=True)
    ((operation, parameters),) = channel.asked
    assert (operation, parameters["VisibilityTimeout"]) == ("ChangeMessageVisibility", seconds)


def test_messages_of_a_worker_that_stops_are_released_ten_at_a_time(channel):
    channel.release_all({str(number): ("q", "url") for number in range(25)})
    assert [len(parameters["Entries"]) for _, parameters in channel.asked] == [10, 10, 5]
    assert {entry["VisibilityTimeout"] for _, parameters in channel.asked for entry in parameters["Entries"]} == {0}


def test_channel_when_closed_then_its_messages_are_released_and_nothing_keeps_them(channel):
    held = transport.QoS(channel)
    held.append(message(), "handle")
    gone = weakref.ref(held)
    held.restore_unacked_once()
    held.restore_unacked_once()
    ((operation, parameters),) = channel.asked
    assert operation == "ChangeMessageVisibilityBatch"
    assert [entry["ReceiptHandle"] for entry in parameters["Entries"]] == ["handle"]
    del held
    gc.collect()
    assert gone() is None
