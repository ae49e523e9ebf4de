"""Access of tests to RabbitMQ."""

from __future__ import annotations

import atexit
import functools
import os
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu.transport.native_delayed_delivery import level_name

from ...brokers.rabbitmq.topology import delay_levels
from ...dev.brokers import rabbitmq as broker

BETWEEN_COUNTS_SECONDS = 1.2
"""Longer than the update interval of the development server's counts."""


@functools.cache
def prepare() -> None:
    """Start a server for all tests of this process; skip the tests if none is installed, except in CI."""
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
    """Return the number of messages of a queue: waiting, in flight and delayed."""
    name = service.queue_name(queue, dead=dead)
    if dead:  # They are neither in flight nor delayed.
        return _waiting(service, [name])
    later = [level_name(level) for level in range(delay_levels(service.contract))]
    before = -1
    while (found := _waiting(service, [name, *later]) + held(service, queue)) != before:
        before = found
        time.sleep(BETWEEN_COUNTS_SECONDS)
    return found


def _waiting(service: Any, names: list[str]) -> int:
    """Return the current number of waiting messages in queues."""
    with service.app.connection_for_write() as connection:
        channel = connection.default_channel
        return sum(channel.queue_declare(name, passive=True).message_count for name in names)


def held(service: Any, queue: Any = None) -> int:
    """Return the number of messages in flight of a queue (by default the first), which may be outdated."""
    virtual_host = urlsplit(service.environment["BROKER_URL"]).path[1:]
    asked = f"queues/{virtual_host}/{service.queue_name(queue)}"
    found = broker.ask(service.environment["BROKER_MANAGEMENT_URL"], "GET", asked)
    return int(found.get("messages_unacknowledged", 0))
