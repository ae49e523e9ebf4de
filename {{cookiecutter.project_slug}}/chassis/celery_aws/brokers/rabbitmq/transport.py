"""kombu's RabbitMQ transport, with what the service promises of failures: backoff, and a count of deliveries.

What stock Celery does, and this does not: redeliver a failed task at once and for ever, or delete it; take a message
that no queue would take for sent; lose count when it waits for an answer of the broker.

It replaces methods that kombu and py-amqp do not promise to keep. Hence the narrow range of versions in pyproject.toml,
and tests/library/test_relied_on.py of the template.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from amqp.exceptions import AMQPError, MessageNacked, RecoverableConnectionError
from kombu.exceptions import OperationalError
from kombu.transport import pyamqp
from kombu.transport.native_delayed_delivery import MAX_LEVEL, calculate_routing_key, level_name
from kombu.utils.json import dumps

from ...failures import fitting
from . import DEAD_LETTERS, HEARTBEAT_SECONDS, TASKS, Known, topology
from .batching import Batch, check_size
from .courier import Parcel, courier

logger = logging.getLogger(__name__)

# Their published types know little of what is replaced here.
BaseMessage: Any = pyamqp.Message
BaseChannel: Any = pyamqp.Channel
BaseConnection: Any = pyamqp.Connection
BaseTransport: Any = pyamqp.Transport

CONFIRM_WITHIN_SECONDS = 10
"""What the broker may take to answer that it has a message; one that is out of memory or disk does not answer."""

DELAYED = level_name(MAX_LEVEL)
"""The exchange where Celery's delayed delivery begins."""

EARLIER_DELIVERIES = "x-earlier-deliveries"
"""Header of a message that came back: how often it had been delivered before it was sent anew for its pause."""

OF_ONE_WAY = frozenset({EARLIER_DELIVERIES, "x-delivery-count", "x-acquired-count", "x-death", "CC", "BCC"})
"""Headers that tell of one way through the broker; with the next, new ones begin."""

OWN_EXCHANGES = frozenset({TASKS.name, DEAD_LETTERS.name, DELAYED})

MAX_HEADERS_BYTES = 100_000
"""What all headers may have together: they must fit into one frame, which has 131,072 bytes."""

TROUBLE = (AMQPError, OSError, OperationalError)
"""What a request to the broker can end with, other than an answer."""


class QueueMissingError(LookupError):
    """The broker has no queue for a message."""


class TaskMessage(BaseMessage):  # type: ignore[misc]
    """A message, which knows how often it was delivered, and is released after a backoff or dead-lettered."""

    def __init__(self, msg: Any, channel: Any = None, **options: Any) -> None:
        super().__init__(msg, channel, **options)
        # RabbitMQ 4.3 counts a message that it takes back, because its consumer held it for too long, as acquired only.
        # What comes for the first time has no counts but such as somebody moved along with it.
        # https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
        counts = [int(self.headers.get(header) or 0) for header in ("x-delivery-count", "x-acquired-count")]
        by_broker = max(counts) if self.delivery_info.get("redelivered") else 0
        counted = int(self.headers.get(EARLIER_DELIVERIES) or 0) + by_broker + 1
        # What is sent by this task, its own retry for example, begins its way anew.
        self.headers: dict[str, Any] = {name: self.headers[name] for name in self.headers if name not in OF_ONE_WAY}
        if group := self.headers.get("MessageGroupId"):
            self.properties: dict[str, Any] = {**self.properties, "MessageGroupId": group}
        # Where it is, which is not how it was sent if it was delayed; Celery sends retries there.
        queue = str(self.delivery_info["routing_key"]).rpartition(".")[2]
        self.delivery_info.update(exchange="", routing_key=queue, receive_count=counted, received_at=time.monotonic())

    def reject(self, requeue: bool = False) -> None:
        """Release the message, or move it to the dead-letter queue.

        Its `delivery_info` may say after how many seconds it is to be delivered again (`release_after_seconds`), and
        why it is dead-lettered (`reason`). Either is made by sending it anew, and then acknowledging this one; were the
        worker killed in between, it would be delivered twice.
        """
        if self.acknowledged:
            raise self.MessageStateError(f"Message already acknowledged with state: {self._state}")
        channel: Any = self.channel
        info = self.delivery_info
        if channel.connection is None:
            logger.warning("message of %s is delivered again, as its connection is lost", info["routing_key"])
            return
        headers = {**self.headers, EARLIER_DELIVERIES: info["receive_count"]}
        if not requeue:
            # Released, it would run again.
            told = {**headers, **fitting(info.get("reason") or {}, MAX_HEADERS_BYTES - len(dumps(headers)))}
            parcel = Parcel(self, told, DEAD_LETTERS.name, info["routing_key"], channel.held_until(info))
        elif channel.is_stopping:
            super().reject(requeue=True)  # At once: another worker may have a slot for it.
            return
        elif seconds := int(info.get("release_after_seconds") or 0):
            parcel = Parcel(self, headers, DELAYED, calculate_routing_key(seconds, info["routing_key"]))
        else:
            parcel = Parcel(self, headers, TASKS.name, info["routing_key"])
        courier.send(parcel, self._sent, wait=channel.is_stopping)

    def _sent(self, sent: bool) -> None:
        """Acknowledge the message, as the broker has the new one; or have it delivered again at once."""
        if self.acknowledged:
            return
        try:
            if sent:
                self.ack()
            else:
                super().reject(requeue=True)
        except (*TROUBLE, AttributeError) as error:  # Its connection is gone, so it is delivered again anyway.
            logger.warning("a message of %s is delivered again: %r", self.delivery_info["routing_key"], error)

    def requeue(self) -> None:
        """Release the message."""
        self.reject(requeue=True)


class Channel(BaseChannel):  # type: ignore[misc]
    """A channel that knows what became of each message it sent, and decides when those not done come back."""

    Message = TaskMessage

    answer_due_seconds = 3 * HEARTBEAT_SECONDS
    """When a heartbeat of the broker is overdue."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._confirm_selected = False
        self._sent = 0
        """Messages sent since the broker was asked to confirm them; it numbers them as well."""
        self._unconfirmed: set[int] = set()
        self._nacked: set[int] = set()
        self._returned: dict[str, str] = {}
        """Why messages found no queue, by task id."""
        super().__init__(*args, **options)
        self.events["basic_ack"].add(self._confirmed)
        self.events["basic_nack"].add(self._refused)
        self.events["basic_return"].add(self._sent_back)

    # Receiving

    def held_until(self, info: Mapping[str, Any]) -> float:
        """Return the monotonic time until which a message may be held, by its `delivery_info`."""
        if self.connection is None:
            return 0
        contract = self.connection.contract
        hidden = {contract.celery_name(queue): queue.hidden_seconds for queue in contract.queues}
        return float(info["received_at"] + hidden.get(info["routing_key"], 0))

    @property
    def is_stopping(self) -> bool:
        """Whether the worker has cancelled its consumers, as it does when it is told to stop."""
        return not self.callbacks

    @property
    def awaits_answers(self) -> bool:
        """Whether the broker has to be heard of; a busy worker hears its heartbeats, too."""
        return not self.is_stopping

    @property
    def last_answer(self) -> float | None:
        """When the broker was heard of last, in seconds of the monotonic clock."""
        return self.connection.last_heartbeat_received if self.connection else None

    def close(self, *args: Any, **options: Any) -> None:
        """Close the channel, when what it has released and dead-lettered is on its way."""
        courier.finish()
        super().close(*args, **options)

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
        """Make a message: its group is a header, and the time when it expires is for workers to see to.

        RabbitMQ would dead-letter what expires in a queue; a worker drops it, as it does with any broker. When it was
        sent, RabbitMQ does not note, and the on-call commands want to know.
        """
        kept = {"timestamp": int(time.time()), **(properties or {})}
        kept.pop("expiration", None)
        if group := kept.pop("MessageGroupId", None):
            headers = {**(headers or {}), "MessageGroupId": group}
        return super().prepare_message(body, priority, content_type, content_encoding, headers, kept)

    def create_publish_batch(self, max_size: int) -> Batch:
        """Return what gathers messages that are to be sent together; `Producer.batch` calls this."""
        return Batch(self)

    def basic_publish_confirm(self, msg: Any, exchange: str = "", routing_key: str = "", **options: Any) -> None:
        """Send a message; one of a task is only sent when the broker has it in a queue.

        Raises:
            MessageNacked: the broker could not keep it.
            MessageTooLargeError: it has more than `max_message_bytes`.
            QueueMissingError: there is no queue for it.
            RecoverableConnectionError: the broker has not answered in time.
        """
        if exchange not in OWN_EXCHANGES:  # Remote control and events, which may get lost.
            self._basic_publish(msg, exchange, routing_key, **{**options, "confirm_timeout": None})
            return
        # What the broker has had already is not refused on its way back, though the reason has made it larger.
        if EARLIER_DELIVERIES not in (msg.properties.get("application_headers") or {}):
            check_size(msg, self.connection.contract.max_message_bytes)
        for error in self.publish_all([(msg, exchange, routing_key)]).values():
            raise error

    def publish_all(self, messages: Iterable[tuple[Any, str, str]]) -> dict[int, Exception]:
        """Send messages, and wait until the broker has told of each what became of it.

        Args:
            messages: each with its exchange and routing key.

        Returns:
            What went wrong with those that were not sent, by their place.

        Raises:
            RecoverableConnectionError: the broker has not answered in time.
        """
        if not self._confirm_selected:
            self.confirm_select()
            self._confirm_selected = True
        sent: dict[int, tuple[int, Any]] = {}
        for place, (message, exchange, routing_key) in enumerate(messages):
            self._basic_publish(message, exchange, routing_key, mandatory=True)
            sent[self._sent] = (place, message)
            self._unconfirmed.add(self._sent)
        end = time.monotonic() + CONFIRM_WITHIN_SECONDS
        while not self._unconfirmed.isdisjoint(sent):
            try:
                self.connection.drain_events(timeout=max(0.001, end - time.monotonic()))
            except TimeoutError:
                self._unconfirmed.clear()
                raise RecoverableConnectionError(
                    f"the broker has not confirmed a message within {CONFIRM_WITHIN_SECONDS} seconds; "
                    f"it may be out of memory or disk"
                ) from None
        failed: dict[int, Exception] = {}
        for number, (place, message) in sent.items():
            if why := self._returned.pop(str(message.properties.get("correlation_id")), ""):
                failed[place] = QueueMissingError(f"not sent, as no queue would have it: {why}")
            elif number in self._nacked:
                failed[place] = MessageNacked("the broker could not keep it")
            self._nacked.discard(number)
        return failed

    def _basic_publish(self, *args: Any, **options: Any) -> None:
        super()._basic_publish(*args, **options)
        self._sent += self._confirm_selected

    def _confirmed(self, delivery_tag: int, multiple: bool) -> None:
        self._unconfirmed -= self._settled(delivery_tag, multiple)

    def _refused(self, delivery_tag: int, multiple: bool) -> None:
        settled = self._settled(delivery_tag, multiple)
        self._unconfirmed -= settled
        self._nacked |= settled

    def _settled(self, delivery_tag: int, multiple: bool) -> set[int]:
        earliest = 0 if multiple else delivery_tag
        return {number for number in self._unconfirmed if earliest <= number <= delivery_tag}

    def _sent_back(self, error: Any, exchange: str, routing_key: str, message: Any) -> None:
        self._returned[str(message.properties.get("correlation_id"))] = (
            f"{error.reply_text} ({routing_key} of {exchange})"
        )


class Connection(BaseConnection):  # type: ignore[misc]
    """A connection whose channels are those above, and know the contract."""

    Channel = Channel

    def __init__(self, *args: Any, known: Known, **options: Any) -> None:
        self.contract = known.contract
        super().__init__(*args, **options)
        _connections.add(self)


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _leave_sockets_to_parent() -> None:
    """Forget, in a process that was forked, the sockets of its parent's connections.

    kombu and py-amqp end there what they find, and so end the parent's own: a worker that starts another process just
    when it sends a task back would hear no answer, and send it twice.
    """
    for connection in _connections:
        transport = connection._transport
        if transport and transport.sock:
            transport.sock.close()  # This process's handle; only a shutdown would reach the broker.
            transport.sock = None


os.register_at_fork(after_in_child=_leave_sockets_to_parent)


class Transport(BaseTransport):  # type: ignore[misc]
    """The transport to name in `broker_transport`."""

    Connection = Connection
    implements = BaseTransport.implements.extend(batch_publish=True)

    def establish_connection(self) -> Any:
        """Connect, and see that all is there that the service needs."""
        variables = self.client.transport_options["known"].variables
        self.client.userid = variables.broker_username
        self.client.password = variables.broker_password.get_secret_value
        connection = super().establish_connection()
        topology.declare(connection, connection.contract)
        return connection
