"""Declares the exchanges and queues of the service; every worker and producer does so when it connects."""

from __future__ import annotations

import logging
from typing import Any

from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Connection, Queue
from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    declare_native_delayed_delivery_exchanges_and_queues,
)

from ...contract import Contract
from . import DEAD_LETTER_EXCHANGE, TASK_EXCHANGE, dead_letter_queue, work_queue

logger = logging.getLogger(__name__)


def declare(connection: Any, contract: Contract) -> None:
    """Declare missing exchanges and queues, and leave existing ones unchanged.

    RabbitMQ cannot change the arguments of an existing queue. If they differ from the contract, a
    warning is logged, and `doctor` explains how to recreate the queue. Until then the old arguments
    apply; workers enforce time limits and receive counts of the contract.

    Args:
        connection: a connection of py-amqp.
        contract: the contract with the queues.

    Raises:
        amqp.exceptions.AMQPError: the broker refused, for example because a permission is missing.
    """
    channel = connection.channel()
    for exchange in (TASK_EXCHANGE, DEAD_LETTER_EXCHANGE):
        channel.exchange_declare(exchange.name, exchange.type, durable=True, auto_delete=False)
    if not _exists(connection, CELERY_DELAYED_DELIVERY_EXCHANGE):
        declare_native_delayed_delivery_exchanges_and_queues(_Opened(connection), "quorum")
    channel.exchange_declare(CELERY_DELAYED_DELIVERY_EXCHANGE, "topic", durable=True, auto_delete=False)
    for queue in contract.queues:
        for wanted in (dead_letter_queue(queue.name, contract), work_queue(queue.name, contract)):
            _declare_queue(connection, wanted)
            channel.queue_bind(wanted.name, wanted.exchange.name, wanted.routing_key)
        # Messages that are due return to the exchange that they were sent to.
        channel.exchange_bind(TASK_EXCHANGE.name, CELERY_DELAYED_DELIVERY_EXCHANGE, f"#.{queue.name}")
        channel.queue_bind(queue.name, TASK_EXCHANGE.name, f"#.{queue.name}")
    channel.close()


def _declare_queue(connection: Any, queue: Queue) -> None:
    channel = connection.channel()
    try:
        channel.queue_declare(queue.name, durable=True, auto_delete=False, arguments=queue.queue_arguments)
    except PreconditionFailed as error:  # The broker has closed the channel.
        logger.warning("queue %s keeps its old arguments: %s", queue.name, error.reply_text)
    else:
        channel.close()


def _exists(connection: Any, exchange: str) -> bool:
    channel = connection.channel()
    try:
        channel.exchange_declare(exchange, passive=True, type="topic")
    except NotFound:
        return False
    channel.close()
    return True


class _Opened(Connection):
    """A kombu connection that wraps an open connection of py-amqp."""

    def __init__(self, opened: Any) -> None:
        super().__init__("amqp://")
        self._opened = opened

    def channel(self) -> Any:
        """Open a channel of the wrapped connection."""
        return self._opened.channel()
