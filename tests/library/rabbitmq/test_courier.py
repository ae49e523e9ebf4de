"""What the courier does with messages that the broker does not take at once, without a broker."""

from __future__ import annotations

import os
import queue
import threading
import time
from types import SimpleNamespace

import pytest

from library.support import module

courier = module("brokers.rabbitmq.courier")


@pytest.fixture
def one(monkeypatch):
    """A courier whose parcels find no broker while `broken` is set, and whose event loop turns when it is told to."""
    made = courier.Courier()
    made.broken = threading.Event()
    made.delivered = []

    def publish(parcel):
        if made.broken.is_set():
            raise ConnectionRefusedError("no broker")
        made.delivered.append(parcel.message)

    made._publish = publish
    calls = queue.SimpleQueue()
    hub = SimpleNamespace(call_soon=calls.put)
    monkeypatch.setattr(courier, "current_app", SimpleNamespace(consumer=SimpleNamespace(hub=hub)))
    monkeypatch.setattr(courier, "RETRY_AFTER_SECONDS", 0.05)
    made.turn = lambda: calls.get(timeout=5)()
    return made


def parcel(name, seconds=0):
    """Return a parcel that is tried again for so long."""
    return courier.Parcel(name, {}, "", "", time.monotonic() + seconds)


def test_parcel_when_the_broker_returns_then_is_sent_once(one):
    answers = []
    one.broken.set()
    one.send(parcel("first", 60), answers.append, wait=False)
    time.sleep(0.2)
    assert answers == []
    one.broken.clear()
    one.turn()
    assert (answers, one.delivered) == ([True], ["first"])


def test_parcel_when_its_time_is_over_then_is_told_to_be_unsent(one):
    answers = []
    one.broken.set()
    one.send(parcel("first", 0.2), answers.append, wait=False)
    one.turn()
    assert answers == [False]


def test_parcel_when_the_worker_stops_then_is_tried_no_longer(one):
    answers = []
    one.broken.set()
    one.send(parcel("first", 60), answers.append, wait=False)
    time.sleep(0.1)
    began = time.monotonic()
    one.finish()
    assert time.monotonic() - began < 2
    assert answers == [False]


def test_finish_when_the_broker_hangs_then_all_waits_share_one_deadline(one, monkeypatch):
    monkeypatch.setattr(courier, "FINISH_WITHIN_SECONDS", 0.5)
    one._publish = lambda parcel: time.sleep(3)
    began = time.monotonic()
    for number in range(3):
        one.send(parcel(str(number)), [].append, wait=True)
    assert time.monotonic() - began < 1


def test_process_when_forked_then_has_a_courier_of_its_own(monkeypatch):
    monkeypatch.setattr(courier.courier, "_publish", lambda parcel: None)
    hub = SimpleNamespace(call_soon=lambda call: None)
    monkeypatch.setattr(courier, "current_app", SimpleNamespace(consumer=SimpleNamespace(hub=hub)))
    courier.courier.send(parcel("parent's"), [].append, wait=False)
    assert courier.courier._thread is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if courier.courier._thread is None and not courier.courier._open else 1)
    assert os.waitpid(child, 0)[1] == 0
    courier.courier.finish()
    assert courier.courier._open == 0
