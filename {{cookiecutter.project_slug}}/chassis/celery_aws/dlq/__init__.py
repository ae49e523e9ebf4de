"""Dead-letter queues: peek at messages, resend, export, import and purge them. One package per broker.

Peeking releases all messages again. A message is deleted only after its copy is confirmed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

from .. import environment as environments
from .. import options
from ..contract import Queue
from .message import Message, Sent


class Peek(Protocol):
    """All messages of a dead-letter queue, page by page; released at the end of the `with` block."""

    seen: int
    """Number of messages seen so far."""

    def pages(self) -> Iterator[Sequence[Any]]:
        """Yield pages of messages until the queue is exhausted."""

    def delete(self, messages: Sequence[Any]) -> object:
        """Delete messages."""


class DeadLetterQueue(Protocol):
    """The interface of a dead-letter queue; each broker's package has one."""

    env: Any
    queue: Queue
    PAGE: int
    """Number of messages to send at a time."""
    name: str
    """Name of the dead-letter queue at the broker."""
    target: str
    """Name of the queue that its messages come from."""
    depth: int
    """Approximate number of messages."""
    unseen: int
    """Number of messages that a peek did not show."""

    @property
    def why_unseen(self) -> str:
        """Why a peek may not show all messages."""

    def peek(self) -> AbstractContextManager[Peek]:
        """Return a peek at all messages."""

    def resend(self, messages: Any) -> Sent[Any]:
        """Send messages to their original queue, with a receive count of 0."""

    def put(self, messages: Any, *, to_dead: bool) -> Sent[Any]:
        """Send exported messages to the dead-letter queue, or to the original queue."""

    def imported(self, line: str) -> Message:
        """Parse a line that `Message.exported` wrote.

        Raises:
            ValueError: the line is invalid, or the queue does not accept the message.
        """

    def redrive(self) -> str:
        """Move all messages to their original queue, or start that; return a message for the operator."""

    def close(self) -> None:
        """Close what sending has opened."""

    def purge(self) -> tuple[int, str]:
        """Delete all messages; return their number and a message for the operator."""


def find(queue: str, environment: str) -> DeadLetterQueue:
    """Return the dead-letter queue of a queue.

    Args:
        queue: short name of the queue.
        environment: name of the environment, such as production.

    Raises:
        UnknownNameError: the contract has no such queue.
    """
    env = environments.find(environment)
    return of(env, env.contract.queue(queue))


def of(env: Any, queue: Queue) -> DeadLetterQueue:
    """Return the dead-letter queue of a queue in an environment."""
    return cast(DeadLetterQueue, options.load(__name__, env.contract.broker).DeadLetterQueue(env, queue))


def exported(dlq: DeadLetterQueue, message: Message) -> str:
    """Return a message as a line of `dlq export`, with its queue."""
    return json.dumps({"queue": dlq.queue.name, **message.exported()}) + "\n"


def imported(dlq: DeadLetterQueue, line: str) -> Message:
    """Parse a line that `exported` returned.

    The line of another queue is accepted if the contract has no such queue: it may have been renamed.

    Raises:
        ValueError: the line is invalid, the queue does not accept the message, or it is of another queue.
    """
    message = dlq.imported(line)
    origin = json.loads(line).get("queue") or dlq.queue.name  # Earlier versions wrote none.
    if origin != dlq.queue.name and origin in (queue.name for queue in dlq.env.contract.queues):
        raise ValueError(f'exported from queue {origin}, not {dlq.queue.name}; to move it, change "queue" in the file')
    return message


def resend(dlq: DeadLetterQueue, peek: Peek, messages: Sequence[Message]) -> Sent[Message]:
    """Send messages back, and delete those that were accepted.

    Args:
        dlq: the dead-letter queue.
        peek: the peek that holds them.
        messages: the messages, which may be edited.
    """
    outcome = dlq.resend(messages)
    peek.delete(outcome.accepted)
    return outcome
