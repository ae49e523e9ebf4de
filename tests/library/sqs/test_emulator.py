"""The emulator keeps what SQS keeps: tests that count deliveries build on it."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from moto.sqs.models import Message, Queue

from celery_aws.dev.brokers.sqs import moto_gaps
from library.support import CONTRACT

THREADS, MESSAGES = 4, 300


@pytest.fixture
def impatient():
    """Let threads take turns far oftener than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_nothing_is_lost_and_nothing_comes_back_when_many_send_and_delete(monkeypatch, impatient):
    monkeypatch.setattr(Queue, "delete_message", moto_gaps.one_at_a_time(Queue.delete_message))
    queue = Queue("many", CONTRACT["region"], "123456789012")

    def send_and_delete_every_other(thread):
        for number in range(MESSAGES):
            message = Message(f"{thread}-{number}", "x", {})
            message.mark_sent()
            queue.add_message(message)
            if number % 2:
                message.mark_received(visibility_timeout=60)
                queue.delete_message(message.receipt_handle)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(send_and_delete_every_other, range(THREADS)))
    kept = {f"{thread}-{number}" for thread in range(THREADS) for number in range(0, MESSAGES, 2)}
    assert sorted(message.id for message in queue._messages) == sorted(kept)
