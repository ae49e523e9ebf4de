"""What tests ask the broker, past the service."""

from __future__ import annotations

import atexit
import functools
import os
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu.transport.native_delayed_delivery import MAX_LEVEL, level_name

from ...dev.brokers import rabbitmq as broker

BETWEEN_COUNTS_SECONDS = 1.2
"""Longer than the counts of the development server are old."""


@functools.cache
def prepare() -> None:
    """Start a server for all the tests of this process; skip them where there is none, though not in CI."""
    if os.environ.get(broker.RUNNING):
        return
    stack = ExitStack()
    atexit.register(stack.close)
    try:
        os.environ[broker.RUNNING] = stack.enter_context(broker.server()).address
    except broker.NoBrokerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def count(service: Any, queue: Any, *, dead: bool) -> int:
    """Return how many messages a queue holds: those that wait, those that workers hold, and those kept for later."""
    name = service.queue_name(queue, dead=dead)
    if dead:  # Nobody holds those.
        return _waiting(service, [name])
    later = [level_name(level) for level in range(MAX_LEVEL + 1)]
    before = -1
    while (found := _waiting(service, [name, *later]) + held(service, queue)) != before:
        before = found
        time.sleep(BETWEEN_COUNTS_SECONDS)
    return found


def _waiting(service: Any, names: list[str]) -> int:
    """Return how many messages wait in queues, at this moment."""
    with service.app.connection_for_write() as connection:
        channel = connection.default_channel
        return sum(channel.queue_declare(name, passive=True).message_count for name in names)


def held(service: Any, queue: Any = None) -> int:
    """Return how many messages of a queue, or of the first, workers held a while ago."""
    virtual_host = urlsplit(service.environment["BROKER_URL"]).path[1:]
    asked = f"queues/{virtual_host}/{service.queue_name(queue)}"
    found = broker.ask(service.environment["BROKER_MANAGEMENT_URL"], "GET", asked)
    return int(found.get("messages_unacknowledged", 0))
