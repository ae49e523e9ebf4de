"""Declares the exchanges and queues of the service; every worker and producer does so when it connects."""

from __future__ import annotations

import logging
from typing import Any

from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Queue
from kombu.transport.native_delayed_delivery import CELERY_DELAYED_DELIVERY_EXCHANGE, MAX_LEVEL, level_name

from ...backoff import longest_backoff_seconds
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
    levels = delay_levels(contract)
    if not exists(connection, level_name(levels - 1)):
        _declare_delays(channel, levels)
    for queue in contract.queues:
        for wanted in (dead_letter_queue(queue.name, contract), work_queue(queue.name, contract)):
            _declare_queue(connection, wanted)
            channel.queue_bind(wanted.name, wanted.exchange.name, wanted.routing_key)
        # Messages that are due return to the exchange that they were sent to.
        channel.exchange_bind(TASK_EXCHANGE.name, CELERY_DELAYED_DELIVERY_EXCHANGE, f"#.{queue.name}")
        channel.queue_bind(queue.name, TASK_EXCHANGE.name, f"#.{queue.name}")
    channel.close()


def delay_levels(contract: Contract) -> int:
    """Return how many queues for delayed messages there are: one for each binary digit of the longest delay."""
    longest_seconds = max(max(queue.max_countdown_seconds, longest_backoff_seconds(queue)) for queue in contract.queues)
    return longest_seconds.bit_length()


def _declare_delays(channel: Any, levels: int) -> None:
    """Declare the exchanges and queues of Celery's native delayed delivery, for delays below 2 ** `levels` seconds.

    Celery would declare 28 quorum queues, for delays of up to eight years. Names, arguments and routing
    keys are its own, so a virtual host can have both.
    https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html#native-delayed-delivery
    """
    names = [level_name(level) for level in range(levels)]
    following = [CELERY_DELAYED_DELIVERY_EXCHANGE, *names]
    for exchange in (*following, level_name(MAX_LEVEL)):
        channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
    if levels <= MAX_LEVEL:
        channel.exchange_bind(names[-1], level_name(MAX_LEVEL), "0." * (MAX_LEVEL + 1 - levels) + "#")
    for level, name in enumerate(names):
        digits = "*." * (MAX_LEVEL - level)
        channel.exchange_bind(following[level], name, f"{digits}0.#")
        arguments = {
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-message-ttl": 2**level * 1000,
            "x-dead-letter-exchange": following[level],
            "x-dead-letter-strategy": "at-least-once",
        }
        channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
        channel.queue_bind(name, name, f"{digits}1.#")


def _declare_queue(connection: Any, queue: Queue) -> None:
    channel = connection.channel()
    try:
        channel.queue_declare(queue.name, durable=True, auto_delete=False, arguments=queue.queue_arguments)
    except PreconditionFailed as error:  # The broker has closed the channel.
        logger.warning("queue %s keeps its old arguments: %s", queue.name, error.reply_text)
    else:
        channel.close()


def exists(connection: Any, queue: str) -> bool:
    """Return whether a queue exists."""
    channel = connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
    except NotFound:
        return False
    channel.close()
    return True
