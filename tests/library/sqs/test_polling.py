"""When the event loop of a worker asks SQS for more."""

from __future__ import annotations

import os
from types import SimpleNamespace

from kombu.asynchronous import Hub

from library.support import module


def test_call_when_made_soon_by_the_event_loop_then_is_not_left_to_its_next_event():
    hub, called = Hub(), []
    reader, writer = os.pipe()
    hub.add_reader(reader, lambda: None)
    hub.call_later(0.01, lambda: None)  # Ends the first wait for an event.
    channel = SimpleNamespace(hub=hub)
    hub.call_soon(lambda: module("brokers.sqs.polling").PollingChannel.soon(channel, called.append, "polled"))
    next(hub.create_loop())
    assert called == ["polled"]
    hub.close()
    os.close(writer)
