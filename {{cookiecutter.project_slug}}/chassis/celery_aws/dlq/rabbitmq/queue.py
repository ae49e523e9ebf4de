"""Looking at many messages without consuming them, and sending them on without losing one.

The order is always the same: the broker has confirmed the new message, or the line is on the disk, and only then is the
old message acknowledged. Whoever kills a command in between finds a message twice, and never none: what was not
acknowledged is back in its queue when the connection is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from amqp import Message as AmqpMessage
from amqp import spec

from ...brokers.rabbitmq import DEAD_LETTERS, TASKS
from ...brokers.rabbitmq.transport import QueueMissingError
from ...contract import Queue
from ...environment.rabbitmq import Environment, explained
from ..message import Sent
from .messages import RabbitmqMessage, imported, received

PAGE_BYTES = 16 * 1_048_576
"""What a page may take of memory, if all its messages are as large as they may be."""

ANSWERS_UNTIL_DONE = 3
"""Of the queue: what was acknowledged before is sent, what was kept back is sent, that is done."""

NOT_SENT_ON = ("expiration", "user_id", "cluster_id")
"""Properties that are not sent on: for how long it was worth waiting, and who sent it over which connection."""


class DeadLetterQueue:
    """The dead-letter queue of one queue."""

    PAGE = 100
    """Messages that are sent at a time."""

    why_unseen = "others hold them; look again in a minute"

    def __init__(self, place: Environment, queue: Queue) -> None:
        self.place = place
        self.queue = queue
        self.name = self.place.name(self.queue, dead=True)
        self.target = self.place.name(self.queue)
        with self.place.connect() as connection, explained():
            self.depth: int = connection.channel().queue_declare(self.name, passive=True).message_count
            """How many messages there are, but for those that others hold."""
        self.unseen = 0
        """Messages that a look did not show, though they are there."""

    def peek(self, page: int = PAGE) -> Peek:
        """Return a look at all messages, so many at a time at the most."""
        fitting = PAGE_BYTES // self.place.contract.max_message_bytes
        return Peek(self.place, self.queue, self.depth, max(1, min(page, fitting)))

    def resend(self, messages: Sequence[RabbitmqMessage]) -> Sent[RabbitmqMessage]:
        """Send messages to the queue they came from, to be tried as if new."""
        return self._send(messages, [message.afresh() for message in messages], TASKS.name)

    def put(self, messages: Sequence[RabbitmqMessage], *, to_dead: bool) -> Sent[RabbitmqMessage]:
        """Send exported messages to the dead-letter queue, or to the queue."""
        if not to_dead:
            return self.resend(messages)
        return self._send(messages, [message.headers for message in messages], DEAD_LETTERS.name)

    def imported(self, line: str) -> RabbitmqMessage:
        """Read an exported line."""
        return imported(line)

    def purge(self) -> tuple[int, str]:
        """Delete as many messages as were counted, so none that came meanwhile; return how many, and a sentence."""
        purged = 0
        with self.peek() as peek:
            for page in peek.pages():
                peek.delete(page)
                purged += len(page)
        return purged, f"{purged} messages deleted"

    @cached_property
    def _sender(self) -> Any:
        """A channel of a connection of its own: a broker short of memory or disk hears senders no more."""
        return self.place.connect().channel()

    @explained()
    def _send(
        self, messages: Sequence[RabbitmqMessage], headers: Sequence[dict[str, Any]], exchange: str
    ) -> Sent[RabbitmqMessage]:
        """Send a page of messages, and wait until the broker has confirmed them."""
        made = []
        for message, kept in zip(messages, headers, strict=True):
            properties = {name: value for name, value in message.properties.items() if name not in NOT_SENT_ON}
            properties["application_headers"] = kept
            made.append((AmqpMessage(message.body, **properties), exchange, self.queue.name))
        failed = self._sender.publish_all(made) if made else {}
        missing = next((error for error in failed.values() if isinstance(error, QueueMissingError)), None)
        if missing:  # What has come back is told apart by its task's id, which several can share, or none have.
            failed = dict.fromkeys(range(len(messages)), missing)
        return Sent(
            tuple(message for index, message in enumerate(messages) if index not in failed),
            tuple((messages[index], str(error)) for index, error in sorted(failed.items())),
        )


class Peek:
    """All messages of a dead-letter queue, page by page, held back from others until the `with` block ends.

    What was not deleted is then given back, before what has come meanwhile, though not in its order. No more are shown
    than were there at first: what is sent on may fail again, and come back, while this goes on.
    """

    def __init__(self, place: Environment, queue: Queue, depth: int, page: int) -> None:
        self.place = place
        self.queue = queue
        self.name = place.name(queue, dead=True)
        self.depth = depth
        self.page = page
        self.seen = 0
        """Messages seen so far."""

    def __enter__(self) -> Peek:
        self._connection = self.place.connect()
        with explained():
            self._channel = self._connection.channel()
        self._channel.auto_decode = False  # Bodies are kept as they are.
        return self

    def __exit__(self, kind: Any, *more: object) -> None:
        if kind:  # Who knows in the middle of what; the broker gives back what a connection held that is gone.
            self._connection.collect()
            return
        with explained():
            # Where many acknowledgements come at once, a quorum queue's client in the broker keeps back those beyond
            # 32, and forgets them if the connection ends now. The queue answers in order, so these wait for them.
            for _ in range(ANSWERS_UNTIL_DONE):
                self._channel.basic_get(self.name)
            # All of them. Not left to the end of the connection: that is a failed delivery to RabbitMQ 4.
            self._channel.send_method(spec.Basic.Nack, "Lbb", (0, True, True))  # Multiple, requeue.
            self._connection.close()

    def pages(self) -> Iterator[list[RabbitmqMessage]]:
        """Yield the messages, until there are no more."""
        while wanted := min(self.page, self.depth - self.seen):
            page = self._get(wanted)
            self.seen += len(page)
            if page:
                yield page
            if len(page) < wanted:
                return

    @explained()
    def _get(self, count: int) -> list[RabbitmqMessage]:
        """Take so many messages, if there are; all are asked for at once, or each would wait for an answer."""
        for _ in range(count):
            self._channel.send_method(spec.Basic.Get, "Bsb", (0, self.name, False))
        answers = [
            self._channel.wait([spec.Basic.GetOk, spec.Basic.GetEmpty], returns_tuple=True) for _ in range(count)
        ]
        return [received(answer[0], answer[-1], self.queue) for answer in answers if len(answer) > 1]

    @explained()
    def delete(self, messages: Sequence[RabbitmqMessage]) -> None:
        """Delete messages that are safe elsewhere."""
        for message in messages:
            self._channel.basic_ack(message.delivery_tag)
