"""Peeking at dead-letter messages, and sending them without losing one.

A message is acknowledged only after the broker has confirmed its copy, or after it is written to
disk. If a command is killed in between, the message exists twice: the broker requeues unacknowledged
messages when the connection closes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from amqp import Message as AmqpMessage
from amqp import spec

from ...brokers.rabbitmq import DEAD_LETTER_EXCHANGE, TASK_EXCHANGE
from ...contract import Queue
from ...durations import counted
from ...environment.rabbitmq import Environment, explained
from ...errors import QueueMissingError
from ..message import Sent
from .messages import RabbitmqMessage, imported, received

PAGE_BYTES = 16 * 1_048_576
"""Maximum size of a page in memory, if all its messages have the maximum size."""

FLUSH_REQUESTS = 3
"""Requests that ensure that the queue has processed all acknowledgements; see `Peek.__exit__`."""

DROPPED_PROPERTIES = ("expiration", "user_id", "cluster_id")
"""Properties that are not kept when a message is sent again."""


class DeadLetterQueue:
    """The dead-letter queue of one queue."""

    PAGE = 100
    """Number of messages to send at a time."""

    why_unseen = "another consumer holds them; try again in a minute"

    def __init__(self, env: Environment, queue: Queue) -> None:
        self.env = env
        self.queue = queue
        self.name = self.env.name(self.queue, dead=True)
        self.target = self.env.name(self.queue)
        with self.env.connect() as connection, explained():
            self.depth: int = connection.channel().queue_declare(self.name, passive=True).message_count
            """Number of messages, without those that other consumers hold."""
        self.unseen = 0
        """Number of messages that a peek did not show."""

    def peek(self, page: int = PAGE) -> Peek:
        """Return a peek at all messages, with at most `page` messages per page."""
        fitting = PAGE_BYTES // self.env.contract.max_message_bytes
        return Peek(self.env, self.queue, self.depth, max(1, min(page, fitting)))

    def resend(self, messages: Sequence[RabbitmqMessage]) -> Sent[RabbitmqMessage]:
        """Send messages to their original queue, with a receive count of 0."""
        return self._send(messages, [message.headers_to_resend() for message in messages], TASK_EXCHANGE.name)

    def put(self, messages: Sequence[RabbitmqMessage], *, to_dead: bool) -> Sent[RabbitmqMessage]:
        """Send exported messages to the dead-letter queue, or to the original queue."""
        if not to_dead:
            return self.resend(messages)
        return self._send(messages, [message.headers for message in messages], DEAD_LETTER_EXCHANGE.name)

    def imported(self, line: str) -> RabbitmqMessage:
        """Parse an exported line."""
        return imported(line)

    def move(self, page: int = PAGE, go_on: Callable[[Sent[RabbitmqMessage]], bool] = lambda outcome: True) -> int:
        """Move all messages to the original queue, page by page, and return how many were moved.

        It stops after a page of which messages could not be sent.

        Args:
            page: number of messages per page.
            go_on: is called with the outcome of each page, and returns whether to move another one.
        """
        moved = 0
        with self.peek(page) as peek:
            for messages in peek.pages():
                outcome = self.resend(messages)
                peek.delete(outcome.accepted)
                moved += len(outcome.accepted)
                if not go_on(outcome) or outcome.refused:
                    break
        return moved

    def redrive(self) -> str:
        """Move all messages to the original queue; return a message for the operator."""
        return f"{self.move()} of {counted(self.depth, 'message')} moved to {self.target}"

    def close(self) -> None:
        """Close the connection for sending."""
        if "_producer" in self.__dict__:
            self._producer.connection.close()

    def purge(self) -> tuple[int, str]:
        """Delete the messages that were counted; return their number and a message for the operator."""
        purged = 0
        with self.peek() as peek:
            for page in peek.pages():
                peek.delete(page)
                purged += len(page)
        return purged, f"{counted(purged, 'message')} deleted"

    @cached_property
    def _producer(self) -> Any:
        """A channel of a separate connection: a broker with a memory or disk alarm blocks publishing connections."""
        return self.env.connect().channel()

    @explained()
    def _send(
        self, messages: Sequence[RabbitmqMessage], headers: Sequence[dict[str, Any]], exchange: str
    ) -> Sent[RabbitmqMessage]:
        """Send a page of messages, and wait until the broker has confirmed them."""
        made = []
        for message, kept in zip(messages, headers, strict=True):
            properties = {name: value for name, value in message.properties.items() if name not in DROPPED_PROPERTIES}
            properties["application_headers"] = kept
            made.append((AmqpMessage(message.body, **properties), exchange, self.queue.name))
        failed = self._producer.publish_all(made) if made else {}
        missing = next((error for error in failed.values() if isinstance(error, QueueMissingError)), None)
        if missing:  # Returned messages are identified by task id, which may be shared or missing.
            failed = dict.fromkeys(range(len(messages)), missing)
        return Sent(
            tuple(message for index, message in enumerate(messages) if index not in failed),
            tuple((messages[index], str(error)) for index, error in sorted(failed.items())),
        )


class Peek:
    """All messages of a dead-letter queue, page by page; released at the end of the `with` block.

    Released messages are requeued before newer ones, but not in their original order. A peek shows at
    most as many messages as there were at its start, because resent messages may fail again meanwhile.
    """

    def __init__(self, env: Environment, queue: Queue, depth: int, page: int) -> None:
        self.env = env
        self.queue = queue
        self.name = env.name(queue, dead=True)
        self.depth = depth
        self.page = page
        self.seen = 0
        """Number of messages seen so far."""

    def __enter__(self) -> Peek:
        self._connection = self.env.connect()
        with explained():
            self._channel = self._connection.channel()
        self._channel.auto_decode = False  # Keep bodies as bytes.
        return self

    def __exit__(self, kind: Any, *more: object) -> None:
        if kind:  # The channel may be unusable; the broker requeues the messages of a closed connection.
            self._connection.collect()
            return
        with explained():
            # RabbitMQ buffers more than 32 pending acknowledgements of a quorum queue, and loses them if the
            # connection closes. The queue responds in order, so these requests wait for them.
            for _ in range(FLUSH_REQUESTS):
                self._channel.basic_get(self.name)
            # Release all. RabbitMQ 4 would count closing the connection as a failed delivery.
            self._channel.send_method(spec.Basic.Nack, "Lbb", (0, True, True))  # Multiple, requeue.
            self._connection.close()

    def pages(self) -> Iterator[list[RabbitmqMessage]]:
        """Yield pages of messages until the queue is exhausted."""
        while wanted := min(self.page, self.depth - self.seen):
            page = self._get(wanted)
            self.seen += len(page)
            if page:
                yield page
            if len(page) < wanted:
                return

    @explained()
    def _get(self, count: int) -> list[RabbitmqMessage]:
        """Receive up to `count` messages; the requests are pipelined to save round trips."""
        for _ in range(count):
            self._channel.send_method(spec.Basic.Get, "Bsb", (0, self.name, False))
        answers = [
            self._channel.wait([spec.Basic.GetOk, spec.Basic.GetEmpty], returns_tuple=True) for _ in range(count)
        ]
        return [received(answer[0], answer[-1], self.queue) for answer in answers if len(answer) > 1]

    @explained()
    def delete(self, messages: Sequence[RabbitmqMessage]) -> None:
        """Delete messages."""
        for message in messages:
            self._channel.basic_ack(message.delivery_tag)
