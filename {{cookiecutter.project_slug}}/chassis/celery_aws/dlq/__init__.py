"""Dead-letter queues: what is in them, why, and sending it back; a folder for each broker.

Peeking consumes nothing: what was received is released again. Nothing is deleted before it is safe elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

from .. import environment as environments
from .. import options
from .message import Message, Sent


class Peek(Protocol):
    """All messages of a dead-letter queue, page by page, held until the `with` block ends and then released."""

    seen: int
    """Messages seen so far."""

    def pages(self) -> Iterator[Sequence[Any]]:
        """Yield the messages, until there are no more."""

    def delete(self, messages: Sequence[Any]) -> object:
        """Delete messages that are safe elsewhere."""


class DeadLetterQueue(Protocol):
    """The dead-letter queue of one queue; each broker's package has one."""

    PAGE: int
    """Messages that are sent at a time."""
    name: str
    """Its name at the broker."""
    target: str
    """Name of the queue that its messages came from."""
    depth: int
    """About how many messages there are."""
    unseen: int
    """Messages that a peek did not show, though they are there."""

    @property
    def why_unseen(self) -> str:
        """Why a peek does not show everything."""

    def peek(self) -> AbstractContextManager[Peek]:
        """Return a peek at all messages."""

    def resend(self, messages: Any) -> Sent[Any]:
        """Send messages to the queue they came from, to be tried as if new."""

    def put(self, messages: Any, *, to_dead: bool) -> Sent[Any]:
        """Send exported messages to the dead-letter queue, or to the queue."""

    def imported(self, line: str) -> Message:
        """Read a line that `Message.exported` wrote.

        Raises:
            ValueError: it is no such line, or no message that this queue takes.
        """

    def purge(self) -> tuple[int, str]:
        """Delete all messages; return how many, and a sentence about it."""


def find(queue: str, environment: str) -> DeadLetterQueue:
    """Return the dead-letter queue of a queue.

    Args:
        queue: short name of the queue.
        environment: where, such as production.

    Raises:
        KeyError: the contract has no such queue.
    """
    place = environments.find(environment)
    found = options.load(__name__, place.contract.broker).DeadLetterQueue(place, place.contract.queue(queue))
    return cast(DeadLetterQueue, found)
