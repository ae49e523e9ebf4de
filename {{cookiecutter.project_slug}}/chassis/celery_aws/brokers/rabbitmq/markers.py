"""Markers of paused queues: empty queues at the broker, `<queue>.paused`, whose arguments say by whom and when.

A command of remote control reaches only workers that are running. A worker that starts, or connects
again, looks for the markers of its queues.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from celery import bootsteps

from ...contract import Queue
from .topology import exists

logger = logging.getLogger(__name__)

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


def deselect_paused(consumer: Any) -> None:
    """Have a worker that is about to consume leave out the queues that are paused.

    Args:
        consumer: the worker's consumer, connected.
    """
    app = consumer.app
    names = [app.contract.celery_name(queue) for queue in _paused(consumer)]
    for each in names:
        logger.warning("queue %s is paused", each)
        app.amqp.queues.deselect(each)
    # They were paused, and resumed while this worker had no connection.
    for each in consumer.paused - set(names):
        app.amqp.queues.select_add(app.amqp.queues[each])
    consumer.paused = set(names)


class CancelPaused(bootsteps.StartStopStep):
    """Looks once more when commands reach the worker: a queue may have been paused just before."""

    requires = ("celery.worker.consumer.control:Control",)

    def start(self, worker_consumer: Any) -> None:
        """Cancel the consumers of queues that are paused."""
        for queue in _paused(worker_consumer):
            celery_name = worker_consumer.app.contract.celery_name(queue)
            if worker_consumer.task_consumer.consuming_from(celery_name):
                worker_consumer.cancel_task_queue(celery_name)
            worker_consumer.paused.add(celery_name)


def _paused(consumer: Any) -> list[Queue]:
    connection = consumer.connection.connection
    return [queue for queue in consumer.app.queues_consumed if exists(connection, name(queue))]
