"""kombu's RabbitMQ transport with backoff, receive counts, dead-lettering and confirms.

With Celery alone, a failed task is redelivered at once and for ever, or deleted; a message that no
queue accepts counts as sent; and confirms are lost while it waits for another response.

This module overrides private methods of kombu and py-amqp. Therefore pyproject.toml pins a narrow
range of versions, and tests/library/test_relied_on.py of the template checks them.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from amqp.exceptions import AMQPError, MessageNacked, PreconditionFailed, RecoverableConnectionError
from kombu.exceptions import OperationalError
from kombu.transport import pyamqp
from kombu.transport.native_delayed_delivery import MAX_LEVEL, calculate_routing_key, level_name
from kombu.utils.json import dumps

from ...errors import PurgeRefusedError, QueueMissingError
from ...failures import fitting
from . import DEAD_LETTER_EXCHANGE, HEARTBEAT_SECONDS, TASK_EXCHANGE, ServiceConfig, topology
from .batching import Batch, check_size
from .republisher import OutgoingMessage, republisher

logger = logging.getLogger(__name__)

# The published types lack what is overridden here.
BaseMessage: Any = pyamqp.Message
BaseChannel: Any = pyamqp.Channel
BaseConnection: Any = pyamqp.Connection
BaseTransport: Any = pyamqp.Transport

CONFIRM_WITHIN_SECONDS = 10
"""Timeout of a confirm; a broker that is out of memory or disk does not confirm."""

DELAYED = level_name(MAX_LEVEL)
"""The first exchange of Celery's native delayed delivery."""

EARLIER_DELIVERIES = "x-earlier-deliveries"
"""Header of a republished message: how often it had been delivered before."""

TRANSIT_HEADERS = frozenset({EARLIER_DELIVERIES, "x-delivery-count", "x-acquired-count", "x-death", "CC", "BCC"})
"""Headers of one passage through the broker, which are removed when a message is sent again."""

OWN_EXCHANGES = frozenset({TASK_EXCHANGE.name, DEAD_LETTER_EXCHANGE.name, DELAYED})

MAX_HEADERS_BYTES = 100_000
"""Maximum total size of the headers: they must fit into one AMQP frame of 131,072 bytes."""

BROKER_ERRORS = (AMQPError, OSError, OperationalError)
"""Errors of a request to the broker."""


class TaskMessage(BaseMessage):  # type: ignore[misc]
    """A message with a receive count, which can be released after a backoff, or dead-lettered."""

    def __init__(self, msg: Any, channel: Any = None, **options: Any) -> None:
        super().__init__(msg, channel, **options)
        # RabbitMQ 4.3 counts a message that it redelivers after the consumer timeout only as acquired.
        # On a first delivery, counts are from another queue.
        # https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
        counts = [int(self.headers.get(header) or 0) for header in ("x-delivery-count", "x-acquired-count")]
        by_broker = max(counts) if self.delivery_info.get("redelivered") else 0
        counted = int(self.headers.get(EARLIER_DELIVERIES) or 0) + by_broker + 1
        # A retry, which copies these headers, must not inherit the transit headers.
        self.headers: dict[str, Any] = {
            name: self.headers[name] for name in self.headers if name not in TRANSIT_HEADERS
        }
        if group := self.headers.get("MessageGroupId"):
            self.properties: dict[str, Any] = {**self.properties, "MessageGroupId": group}
        # The name of the queue; the routing key of a delayed message has its delay. Retries go there.
        queue = str(self.delivery_info["routing_key"]).rpartition(".")[2]
        self.delivery_info.update(
            exchange="",
            routing_key=queue,
            receive_count=counted,
            received_at=time.monotonic(),
            sent_at=self.properties.get("timestamp"),
        )

    def reject(self, requeue: bool = False) -> None:
        """Release the message, or move it to the dead-letter queue.

        Its `delivery_info` has the delay of the redelivery (`release_after_seconds`), or why it is
        dead-lettered (`reason`). Both republish the message and then acknowledge this one. If the
        worker is killed in between, the message is delivered twice.
        """
        if self.acknowledged:
            raise self.MessageStateError(f"Message already acknowledged with state: {self._state}")
        channel: Any = self.channel
        info = self.delivery_info
        if channel.connection is None:
            logger.warning("connection lost, message of queue %s will be redelivered", info["routing_key"])
            return
        headers = {**self.headers, EARLIER_DELIVERIES: info["receive_count"]}
        if not requeue:
            with_reason = {**headers, **fitting(info.get("reason") or {}, MAX_HEADERS_BYTES - len(dumps(headers)))}
            # Retried until then, because the task would run again if the message were released.
            retry_until = channel.held_until(info)
            outgoing = OutgoingMessage(self, with_reason, DEAD_LETTER_EXCHANGE.name, info["routing_key"], retry_until)
        elif channel.is_stopping:
            super().reject(requeue=True)  # Without a backoff: another worker may have a free slot.
            return
        elif seconds := int(info.get("release_after_seconds") or 0):
            outgoing = OutgoingMessage(self, headers, DELAYED, calculate_routing_key(seconds, info["routing_key"]))
        else:
            outgoing = OutgoingMessage(self, headers, TASK_EXCHANGE.name, info["routing_key"])
        republisher.send(outgoing, self._republished, wait=channel.is_stopping)

    def _republished(self, sent: bool) -> None:
        """Acknowledge the message if the new one was sent, or release it at once."""
        if self.acknowledged:
            return
        try:
            if sent:
                self.ack()
            else:
                super().reject(requeue=True)
        except (*BROKER_ERRORS, AttributeError) as error:  # The connection is lost, so it is redelivered.
            logger.warning("message of queue %s will be redelivered: %r", self.delivery_info["routing_key"], error)

    def requeue(self) -> None:
        """Release the message."""
        self.reject(requeue=True)


class Channel(BaseChannel):  # type: ignore[misc]
    """A channel that tracks confirms, and releases and dead-letters messages."""

    Message = TaskMessage

    answer_due_seconds = 3 * HEARTBEAT_SECONDS
    """Seconds after which a heartbeat of the broker is overdue."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._confirm_selected = False
        self._sent = 0
        """Messages sent in confirm mode; also the delivery tag of the last one."""
        self._unconfirmed: set[int] = set()
        self._nacked: set[int] = set()
        self._returned: dict[str, str] = {}
        """Why messages were returned as unroutable, by task id."""
        super().__init__(*args, **options)
        self.events["basic_ack"].add(self._on_confirmed)
        self.events["basic_nack"].add(self._on_rejected)
        self.events["basic_return"].add(self._on_returned)

    def queue_purge(self, queue: str = "", nowait: bool = False) -> int:
        """Refuse to delete messages; `purge` is for commands of the service.

        Raises:
            PurgeRefusedError: always.
        """
        raise PurgeRefusedError(queue)

    def purge(self, queue: str) -> int:
        """Delete the messages that wait in a queue, and return how many they were."""
        return int(super().queue_purge(queue))

    # Receiving

    def held_until(self, info: Mapping[str, Any]) -> float:
        """Return the monotonic time until which a message may be held, from its `delivery_info`."""
        if self.connection is None:
            return 0
        contract = self.connection.contract
        seconds = {contract.celery_name(queue): queue.hold_seconds for queue in contract.queues}
        return float(info["received_at"] + seconds.get(info["routing_key"], 0))

    @property
    def is_stopping(self) -> bool:
        """Whether the worker is stopping: it has cancelled its consumers."""
        return not self.callbacks

    @property
    def awaits_answers(self) -> bool:
        """Whether heartbeats are due; a busy worker receives them, too."""
        return not self.is_stopping

    @property
    def last_answer(self) -> float | None:
        """Monotonic time of the broker's last heartbeat."""
        return self.connection.last_heartbeat_received if self.connection else None

    def close(self, *args: Any, **options: Any) -> None:
        """Close the channel after its messages were republished."""
        republisher.finish()
        super().close(*args, **options)

    def _on_close(self, reply_code: int, reply_text: str, class_id: int, method_id: int) -> None:
        """Raise the broker's error; a closure that answers no request counts as a lost connection.

        Otherwise it would end the worker. RabbitMQ before 4.3 closes a channel that holds a message
        beyond the consumer timeout.
        https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
        """
        try:
            super()._on_close(reply_code, reply_text, class_id, method_id)
        except PreconditionFailed as error:
            if class_id:
                raise
            raise RecoverableConnectionError(reply_text) from error

    # Sending

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> Any:
        """Create a message, with its group as a header, a timestamp, and no expiration.

        RabbitMQ would dead-letter an expired message; workers drop it, as on any broker. RabbitMQ does
        not record when a message was sent, which the operator commands show.
        """
        kept = {"timestamp": int(time.time()), **(properties or {})}
        kept.pop("expiration", None)
        if group := kept.pop("MessageGroupId", None):
            headers = {**(headers or {}), "MessageGroupId": group}
        return super().prepare_message(body, priority, content_type, content_encoding, headers, kept)

    def create_publish_batch(self, max_size: int) -> Batch:
        """Return a batch of messages; `Producer.batch` calls this."""
        return Batch(self)

    def basic_publish_confirm(self, msg: Any, exchange: str = "", routing_key: str = "", **options: Any) -> None:
        """Send a message; for a task, wait until the broker has confirmed it.

        Raises:
            MessageNacked: the broker rejected the message.
            MessageTooLargeError: it is larger than `max_message_bytes`.
            QueueMissingError: no queue is bound for it.
            RecoverableConnectionError: the broker did not respond in time.
        """
        if exchange not in OWN_EXCHANGES:  # Remote control and events, which may be lost.
            self._basic_publish(msg, exchange, routing_key, **{**options, "confirm_timeout": None})
            return
        # A republished message may be larger, because it has the reason of the failure.
        if EARLIER_DELIVERIES not in (msg.properties.get("application_headers") or {}):
            check_size(msg, self.connection.contract.max_message_bytes)
        for error in self.publish_all([(msg, exchange, routing_key)]).values():
            raise error

    def publish_all(self, messages: Iterable[tuple[Any, str, str]]) -> dict[int, Exception]:
        """Send messages, and wait for the confirms of all.

        Args:
            messages: messages with exchange and routing key.

        Returns:
            The error of each message that was not sent, by its index.

        Raises:
            RecoverableConnectionError: the broker did not respond in time.
        """
        if not self._confirm_selected:
            self.confirm_select()
            self._confirm_selected = True
        sent: dict[int, tuple[int, Any]] = {}
        for index, (message, exchange, routing_key) in enumerate(messages):
            self._basic_publish(message, exchange, routing_key, mandatory=True)
            sent[self._sent] = (index, message)
            self._unconfirmed.add(self._sent)
        end = time.monotonic() + CONFIRM_WITHIN_SECONDS
        while not self._unconfirmed.isdisjoint(sent):
            try:
                self.connection.drain_events(timeout=max(0.001, end - time.monotonic()))
            except TimeoutError:
                self._unconfirmed.clear()
                raise RecoverableConnectionError(
                    f"the broker did not confirm a message within {CONFIRM_WITHIN_SECONDS} seconds; "
                    f"it may be out of memory or disk space"
                ) from None
        failed: dict[int, Exception] = {}
        for number, (index, message) in sent.items():
            if why := self._returned.pop(str(message.properties.get("correlation_id")), ""):
                failed[index] = QueueMissingError(f"not sent, no queue is bound for it: {why}")
            elif number in self._nacked:
                failed[index] = MessageNacked("the broker rejected it")
            self._nacked.discard(number)
        return failed

    def _basic_publish(self, *args: Any, **options: Any) -> None:
        super()._basic_publish(*args, **options)
        self._sent += self._confirm_selected

    def _on_confirmed(self, delivery_tag: int, multiple: bool) -> None:
        self._unconfirmed -= self._settled(delivery_tag, multiple)

    def _on_rejected(self, delivery_tag: int, multiple: bool) -> None:
        settled = self._settled(delivery_tag, multiple)
        self._unconfirmed -= settled
        self._nacked |= settled

    def _settled(self, delivery_tag: int, multiple: bool) -> set[int]:
        earliest = 0 if multiple else delivery_tag
        return {number for number in self._unconfirmed if earliest <= number <= delivery_tag}

    def _on_returned(self, error: Any, exchange: str, routing_key: str, message: Any) -> None:
        self._returned[str(message.properties.get("correlation_id"))] = (
            f"{error.reply_text} ({routing_key} of {exchange})"
        )


class Connection(BaseConnection):  # type: ignore[misc]
    """A connection that creates channels of the class above, and has the contract."""

    Channel = Channel

    def __init__(self, *args: Any, service_config: ServiceConfig, **options: Any) -> None:
        self.contract = service_config.contract
        super().__init__(*args, **options)
        _connections.add(self)


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _close_inherited_sockets() -> None:
    """Close the sockets of the parent's connections in a forked process.

    kombu and py-amqp would shut them down, and so also disconnect the parent. A worker that forks
    while it republishes a message would get no confirm, and send the message twice.
    """
    for connection in _connections:
        transport = connection._transport
        if transport and transport.sock:
            transport.sock.close()  # Closes the descriptor of this process only.
            transport.sock = None


os.register_at_fork(after_in_child=_close_inherited_sockets)


class Transport(BaseTransport):  # type: ignore[misc]
    """The transport class for Celery's `broker_transport`."""

    Connection = Connection
    implements = BaseTransport.implements.extend(batch_publish=True)

    def establish_connection(self) -> Any:
        """Connect, and declare the exchanges and queues of the service."""
        variables = self.client.transport_options["service_config"].variables
        self.client.userid = variables.broker_username
        self.client.password = variables.broker_password.get_secret_value
        connection = super().establish_connection()
        topology.declare(connection, connection.contract)
        return connection
