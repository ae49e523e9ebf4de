"""Republishing of messages that the broker does not accept at once, without a broker."""

from __future__ import annotations

import os
import queue
import threading
import time
from types import SimpleNamespace

import pytest

from library.support import module

republisher = module("brokers.rabbitmq.republisher")


@pytest.fixture
def one(monkeypatch):
    """A republisher without a broker while `broken` is set; `turn` runs its event loop once."""
    made = republisher.Republisher()
    made.broken = threading.Event()
    made.delivered = []

    def publish(outgoing):
        if made.broken.is_set():
            raise ConnectionRefusedError("no broker")
        made.delivered.append(outgoing.message)

    made._publish = publish
    calls = queue.SimpleQueue()
    hub = SimpleNamespace(call_soon=calls.put)
    monkeypatch.setattr(republisher, "current_app", SimpleNamespace(consumer=SimpleNamespace(hub=hub)))
    monkeypatch.setattr(republisher, "RETRY_AFTER_SECONDS", 0.05)
    made.turn = lambda: calls.get(timeout=5)()
    return made


def outgoing(name, seconds=0):
    """Return a message that is retried for some seconds."""
    return republisher.OutgoingMessage(name, {}, "", "", time.monotonic() + seconds)


def test_message_when_the_broker_returns_then_is_sent_once(one):
    answers = []
    one.broken.set()
    one.send(outgoing("first", 60), answers.append, wait=False)
    time.sleep(0.2)
    assert answers == []
    one.broken.clear()
    one.turn()
    assert (answers, one.delivered) == ([True], ["first"])


def test_message_when_its_time_is_over_then_is_reported_as_unsent(one):
    answers = []
    one.broken.set()
    one.send(outgoing("first", 0.2), answers.append, wait=False)
    one.turn()
    assert answers == [False]


def test_message_when_the_worker_stops_then_is_not_retried(one):
    answers = []
    one.broken.set()
    one.send(outgoing("first", 60), answers.append, wait=False)
    time.sleep(0.1)
    began = time.monotonic()
    one.finish()
    assert time.monotonic() - began < 2
    assert answers == [False]


def test_finish_when_the_broker_hangs_then_all_waits_share_one_deadline(one, monkeypatch):
    monkeypatch.setattr(republisher, "FINISH_WITHIN_SECONDS", 0.5)
    one._publish = lambda outgoing: time.sleep(3)
    began = time.monotonic()
    for number in range(3):
        one.send(outgoing(str(number)), [].append, wait=True)
    assert time.monotonic() - began < 1


def test_process_when_forked_then_has_its_own_republisher(monkeypatch):
    monkeypatch.setattr(republisher.republisher, "_publish", lambda outgoing: None)
    hub = SimpleNamespace(call_soon=lambda call: None)
    monkeypatch.setattr(republisher, "current_app", SimpleNamespace(consumer=SimpleNamespace(hub=hub)))
    republisher.republisher.send(outgoing("parent's"), [].append, wait=False)
    assert republisher.republisher._thread is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if republisher.republisher._thread is None and not republisher.republisher._open else 1)
    assert os.waitpid(child, 0)[1] == 0
    republisher.republisher.finish()
    assert republisher.republisher._open == 0
