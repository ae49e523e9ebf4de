"""Declares the exchanges and queues of the service, for whoever connects first: a worker, a sender or a command."""

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
from . import DEAD_LETTERS, TASKS, dead_letter_queue, work_queue

logger = logging.getLogger(__name__)


def declare(connection: Any, contract: Contract) -> None:
    """Declare what is missing; what is there stays as it is.

    The numbers of a queue that exists cannot be changed. So a contract with other numbers is told of in the log, and
    `doctor` tells how to make the queue anew; until then the old numbers hold, but for those that workers see to.

    Args:
        connection: of py-amqp.
        contract: whose queues there are to be.

    Raises:
        amqp.exceptions.AMQPError: the broker refuses, for want of rights for example.
    """
    channel = connection.channel()
    for exchange in (TASKS, DEAD_LETTERS):
        channel.exchange_declare(exchange.name, exchange.type, durable=True, auto_delete=False)
    if not _exists(connection, CELERY_DELAYED_DELIVERY_EXCHANGE):
        declare_native_delayed_delivery_exchanges_and_queues(_Opened(connection), "quorum")
    channel.exchange_declare(CELERY_DELAYED_DELIVERY_EXCHANGE, "topic", durable=True, auto_delete=False)
    for queue in contract.queues:
        for wanted in (dead_letter_queue(queue.name, contract), work_queue(queue.name, contract)):
            _declare_queue(connection, wanted)
            channel.queue_bind(wanted.name, wanted.exchange.name, wanted.routing_key)
        # What is due comes back by the exchange that it was sent to.
        channel.exchange_bind(TASKS.name, CELERY_DELAYED_DELIVERY_EXCHANGE, f"#.{queue.name}")
        channel.queue_bind(queue.name, TASKS.name, f"#.{queue.name}")
    channel.close()


def _declare_queue(connection: Any, queue: Queue) -> None:
    channel = connection.channel()
    try:
        channel.queue_declare(queue.name, durable=True, auto_delete=False, arguments=queue.queue_arguments)
    except PreconditionFailed as error:  # Which has closed the channel.
        logger.warning("%s keeps the numbers that it was made with: %s", queue.name, error.reply_text)
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
    """What kombu takes for a connection, around one of py-amqp that is open already."""

    def __init__(self, opened: Any) -> None:
        super().__init__("amqp://")
        self._opened = opened

    def channel(self) -> Any:
        """Open a channel."""
        return self._opened.channel()
