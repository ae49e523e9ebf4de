"""Which request a worker of several queues starts next."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from library.support import module

consumer = module("consumer")

LONGEST_SECONDS = 100


@pytest.fixture
def waiting():
    """Requests of two queues; nothing starts by itself."""
    queues = [SimpleNamespace(name="urgent", hard_limit_seconds=10)]
    queues.append(SimpleNamespace(name="other", hard_limit_seconds=LONGEST_SECONDS))
    return consumer.WaitingRequests(lambda request: None, queues)


def request(started, name, queue, held_for_seconds=1_000.0, limit=10):
    """Return a request that may be held for some more seconds."""
    return SimpleNamespace(
        queue=SimpleNamespace(name=queue),
        hold_until=time.monotonic() + held_for_seconds,
        time_limits=(limit, limit / 2),
        execute_using_pool=lambda pool: started.append(name),
    )


def start(waiting, count):
    for _ in range(count):
        waiting.execute_using_pool(None)


def test_requests_when_of_two_queues_then_urgent_ones_start_first_in_order(waiting):
    started = []
    for name, queue in (("a", "other"), ("b", "urgent"), ("c", "other"), ("d", "urgent")):
        waiting.add(request(started, name, queue))
    start(waiting, 4)
    assert started == ["b", "d", "a", "c"]


def test_request_when_its_queue_was_added_later_then_starts_last(waiting):
    started = []
    for name, queue in (("added", "another"), ("a", "other"), ("b", "urgent")):
        waiting.add(request(started, name, queue))
    start(waiting, 3)
    assert started == ["b", "a", "added"]


def test_request_when_it_would_start_too_late_then_goes_first(waiting):
    """With 10 seconds of its own limit, and another task of 100 seconds before it."""
    started = []
    waiting.add(request(started, "in time", "other", LONGEST_SECONDS + 10 + 5))
    waiting.add(request(started, "late", "other", LONGEST_SECONDS + 10 - 5))
    waiting.add(request(started, "later", "other", LONGEST_SECONDS + 10 - 50))
    waiting.add(request(started, "urgent", "urgent"))
    start(waiting, 4)
    assert started == ["later", "late", "urgent", "in time"]


def test_outcome_to_store_when_requests_wait_then_goes_first(waiting):
    started = []
    waiting.add(request(started, "urgent", "urgent"))
    recording = consumer.Recording.__new__(consumer.Recording)
    recording.execute_using_pool = lambda pool: started.append("outcome")
    waiting.add(recording)
    start(waiting, 2)
    assert started == ["outcome", "urgent"]
