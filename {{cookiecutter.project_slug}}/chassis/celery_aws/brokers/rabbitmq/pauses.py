"""What a worker does about paused queues: it looks for their markers when it connects, and when it is told to."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from celery.utils.collections import AttributeDict
from celery.worker.control import control_command

from . import markers
from .topology import exists

logger = logging.getLogger(__name__)


def deselect_paused(consumer: Any) -> None:
    """Have a worker that is about to consume leave out the queues that are paused.

    Args:
        consumer: the worker's consumer, connected.
    """
    app = consumer.app
    names = _paused(consumer)
    for each in sorted(names):
        logger.warning("queue %s is paused", each)
        app.amqp.queues.deselect(each)
    # They were paused, and resumed while this worker had no connection.
    for each in consumer.paused - names:
        app.amqp.queues.select_add(app.amqp.queues[each])
    consumer.paused = names


@control_command()
def look_for_pauses(state: Any) -> dict[str, list[str]]:
    """Stop or start to consume the worker's queues, by the markers that are there now.

    Args:
        state: the worker's state: its application and consumer.

    Returns:
        The names in Celery of the worker's queues.
    """
    consumer = state.consumer
    app = consumer.app
    names = _paused(consumer)
    for each in sorted(names - consumer.paused):
        logger.warning("queue %s is paused", each)
        consumer.cancel_task_queue(each)
    for each in consumer.paused - names:
        consumer.add_task_queue(each)
    consumer.paused = names
    return {"ok": [app.contract.celery_name(queue) for queue in app.queues_consumed]}


class LookAgain(bootsteps.StartStopStep):
    """Looks once more when commands reach the worker: a queue may have been paused just before."""

    requires = ("celery.worker.consumer.control:Control",)

    def start(self, worker_consumer: Any) -> None:
        """Stop to consume queues that are paused."""
        look_for_pauses(AttributeDict(consumer=worker_consumer))


def _paused(consumer: Any) -> set[str]:
    """Return the names in Celery of the worker's queues that have a marker."""
    app, connection = consumer.app, consumer.connection.connection
    return {app.contract.celery_name(queue) for queue in app.queues_consumed if exists(connection, markers.name(queue))}
