"""How long messages stay hidden, number by number."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from tests.support import module

transport = module("transport")

RULES = {
    "max_receive_count": 5,
    "visibility_timeout_seconds": 100,
    "retry_backoff_seconds": 10,
    "heartbeat_seconds": 30,
    "heartbeat_limit_seconds": 250,
}


@pytest.mark.parametrize(("received", "longest"), [(1, 10), (2, 20), (3, 40), (4, 80)])
def test_pause_doubles_with_each_delivery_with_jitter(received, longest):
    pauses = {transport.backoff_seconds(RULES, received) for _ in range(200)}
    assert longest / 2 <= min(pauses) < max(pauses) <= longest


def test_pause_is_never_longer_than_the_visibility_timeout_and_none_before_the_dead_letter_queue():
    assert transport.backoff_seconds({**RULES, "max_receive_count": 99}, 40) <= 100
    assert transport.backoff_seconds(RULES, 5) == 0


def test_pause_of_a_task_replaces_that_of_the_queue():
    assert 25 <= transport.backoff_seconds(RULES, 1, 50) <= 50
    assert transport.backoff_seconds(RULES, 1, 0) == 0


def test_heartbeat_never_goes_past_its_limit():
    """A message held for 0, 200 and 260 seconds gets 100 seconds, the 50 that are left, and none."""
    seen = {}

    def change_message_visibility_batch(QueueUrl, Entries):  # noqa: N803 - as boto3 has it
        seen.update({entry["ReceiptHandle"]: entry["VisibilityTimeout"] for entry in Entries})
        return {}

    now = time.monotonic()
    held = {
        f"held-{seconds}": SimpleNamespace(
            delivery_info={"routing_key": "q", "sqs_queue": "url", "received_at": now - seconds}
        )
        for seconds in (0, 200, 260)
    }
    channel = SimpleNamespace(
        qos=SimpleNamespace(_delivered={**held, "done": held["held-0"]}, _dirty={"done"}),
        predefined_queues={"q": RULES},
        sqs=lambda queue: SimpleNamespace(change_message_visibility_batch=change_message_visibility_batch),
    )
    channel._extend = lambda *args: transport.Channel._extend(channel, *args)
    transport.Channel.extend_visibility(channel)
    assert seen.keys() == {"held-0", "held-200"}
    assert 99 <= seen["held-0"] <= 100
    assert 49 <= seen["held-200"] <= 50


@pytest.mark.parametrize(("consuming", "pauses"), [(["q"], range(5, 11)), ([], [0])], ids=["working", "stopping"])
def test_rejected_message_comes_back_after_a_pause_but_at_once_when_the_worker_stops(consuming, pauses):
    hidden = []
    message = SimpleNamespace(delivery_info={"routing_key": "q", "sqs_queue": "url", "receive_count": 1})
    channel = SimpleNamespace(
        qos=SimpleNamespace(get=lambda tag: message, reject=lambda tag, requeue: None),
        predefined_queues={"q": RULES},
        _active_queues=consuming,
        _hide=lambda queue, url, tag, seconds: hidden.append(seconds),
        _room_made=lambda: None,
    )
    transport.Channel.basic_reject(channel, "tag", requeue=True)
    assert hidden[0] in pauses
