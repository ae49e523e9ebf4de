"""Markers of paused queues: empty queues at the broker, `<queue>.paused`, whose arguments say by whom and when.

A command of remote control reaches only workers that are running. A worker that starts, or connects
again, looks for the markers of its queues.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...contract import Queue
from .topology import exists

SUFFIX = ".paused"
"""Of the names of markers; a queue of a contract has no dot in its name."""

PREFIX = "x-celery-aws-"
"""Of arguments that RabbitMQ keeps without using them."""


def name(queue: Queue) -> str:
    """Return the name of the marker of a queue."""
    return f"{queue.name}{SUFFIX}"


def put(connection: Any, queue: Queue, about: Mapping[str, Any]) -> None:
    """Declare the marker of a queue; one that is there stays as it is.

    Args:
        connection: a connection of py-amqp.
        queue: the queue.
        about: what to store with it: texts and numbers.
    """
    if not exists(connection, name(queue)):
        stored = {f"{PREFIX}{key}": str(value) for key, value in about.items()}
        channel = connection.channel()
        channel.queue_declare(name(queue), durable=True, auto_delete=False, arguments=stored)
        channel.close()


def read(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was stored with a marker, from its arguments."""
    return {key.removeprefix(PREFIX): value for key, value in arguments.items() if key.startswith(PREFIX)}


def remove(connection: Any, queue: Queue) -> None:
    """Delete the marker of a queue, if it is there."""
    channel = connection.channel()
    channel.queue_delete(name(queue))
    channel.close()
