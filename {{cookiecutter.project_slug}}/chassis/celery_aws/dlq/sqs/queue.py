"""Looking at many messages without consuming them, and sending them on without losing one.

The order is always the same: the new message is accepted, or the line is on the disk, and only then is the old message
deleted. Whoever kills a command in between finds a message twice, and never none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...brokers.sqs.batching import ENTRIES_PER_REQUEST, MAX_REQUEST_BYTES, send_batch, size_bytes
from ...contract import Queue
from ...environment.sqs import Environment
from ..message import Sent
from .messages import SqsMessage, imported, received

WAIT_SECONDS = 2
"""A long poll asks every server of SQS, so one that brings nothing has seen that there is nothing."""


class DeadLetterQueue:
    """The dead-letter queue of one queue."""

    PAGE = ENTRIES_PER_REQUEST
    """Messages that are sent at a time."""

    def __init__(self, place: Environment, queue: Queue) -> None:
        self.place = place
        self.queue = queue
        self.name = self.place.name(self.queue, dead=True)
        self.target = self.place.name(self.queue)
        self.url = self.place.url(self.queue, dead=True)
        self.depth = self.place.depth(self.queue, dead=True)
        """About how many messages there are."""
        self.ordered = self.name.endswith(".fifo")
        self.unseen = 0
        """Messages that a look did not show, though they are there."""

    @property
    def why_unseen(self) -> str:
        """Why a look does not show everything."""
        if self.ordered:
            return "SQS shows ten of a group at a time, or others hold them"
        return "others hold them; look again in a minute"

    def peek(self) -> Peek:
        """Return a look at all messages."""
        return Peek(self.place.sqs, self.url, self.depth)

    def resend(self, messages: list[SqsMessage]) -> Sent[SqsMessage]:
        """Send messages to the queue they came from; what SQS takes for a repetition of that is there."""
        # The id follows from the message: were this command killed between sending and deleting, and run again within
        # five minutes, SQS would see the repetition. A message that fails again has another id.
        outcome, repeated = self._send(
            messages,
            to_dead=False,
            make=lambda m: entry(m, f"{m.message_id}:resent" if self.ordered else "", with_reason=False),
        )
        return Sent(outcome.accepted + repeated, outcome.refused)

    def put(self, messages: list[SqsMessage], *, to_dead: bool) -> Sent[SqsMessage]:
        """Send exported messages to the dead-letter queue, or to the queue."""
        outcome, repeated = self._send(messages, to_dead=to_dead, make=lambda m: self._imported(m, to_dead))
        late = tuple((message, "SQS got it less than five minutes ago") for message in repeated)
        return Sent(outcome.accepted, outcome.refused + late)

    def _imported(self, message: SqsMessage, to_dead: bool) -> dict[str, Any]:
        deduplication_id = ""
        if self.ordered:
            # Into the queue it came from, its own id could be taken for a repetition of its first sending.
            deduplication_id = message.deduplication_id if to_dead else f"{message.message_id}:import"
        return entry(message, deduplication_id, with_reason=to_dead)

    def _send(
        self, messages: list[SqsMessage], *, to_dead: bool, make: Callable[[SqsMessage], dict[str, Any]]
    ) -> tuple[Sent[SqsMessage], tuple[SqsMessage, ...]]:
        return send(self.place.sqs, self.place.url(self.queue, dead=to_dead), messages, make, ordered=self.ordered)

    def imported(self, line: str) -> SqsMessage:
        """Read an exported line.

        Raises:
            ValueError: it is none, or lacks what a FIFO queue needs.
        """
        message = imported(line)
        if self.ordered and not (message.group and message.deduplication_id):
            raise ValueError("a FIFO queue needs its group and deduplication_id")
        return message

    def purge(self) -> tuple[int, str]:
        """Delete all messages; return how many, and a sentence about it."""
        self.place.sqs.purge_queue(QueueUrl=self.url)
        return self.depth, f"about {self.depth} messages deleted; SQS takes up to a minute"


class Peek:
    """All messages of a queue, page by page, hidden from others until the `with` block ends; then given back.

    A process that is killed gives nothing back: its messages are hidden for `visibility_seconds`.

    On FIFO queues SQS shows ten messages of a group at the most, and no further one before those are deleted.
    """

    def __init__(self, sqs: Any, url: str, depth: int) -> None:
        self.sqs = sqs
        self.url = url
        self.visibility_seconds = 30 + depth // 100
        """Long enough to see the last message before the first one comes back."""
        self.seen = 0
        """Messages seen so far."""
        self._held: dict[str, str] = {}
        """Receipt handles of what is to be given back, by message id."""
        self._gone: set[str] = set()

    def __enter__(self) -> Peek:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def pages(self) -> Iterator[list[SqsMessage]]:
        """Yield the messages, ten at the most at a time, until there are no more."""
        nothing_new = 0
        while nothing_new < 3:  # A queue whose messages come back meanwhile would never end.
            answer = self.sqs.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=ENTRIES_PER_REQUEST,
                WaitTimeSeconds=WAIT_SECONDS,
                VisibilityTimeout=self.visibility_seconds,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
            )
            page = answer.get("Messages", [])
            if not page:
                return
            new = [message for message in page if message["MessageId"] not in self._held]
            self._held.update({message["MessageId"]: message["ReceiptHandle"] for message in page})
            again = [message for message in new if message["MessageId"] in self._gone]
            new = [message for message in new if message["MessageId"] not in self._gone]
            if again:  # Deleted, and delivered once more, which SQS allows itself.
                self._delete([(message["MessageId"], message["ReceiptHandle"]) for message in again])
            nothing_new = 0 if new else nothing_new + 1
            if new:
                self.seen += len(new)
                yield [received(message) for message in new]

    def delete(self, messages: Sequence[SqsMessage]) -> int:
        """Delete messages that are safe elsewhere; return how many of them SQS did not delete."""
        return self._delete([(message.message_id, message.receipt_handle) for message in messages])

    def _delete(self, messages: Sequence[tuple[str, str]]) -> int:
        if not messages:
            return 0
        entries = [{"Id": str(index), "ReceiptHandle": handle} for index, (_, handle) in enumerate(messages)]
        answer = self.sqs.delete_message_batch(QueueUrl=self.url, Entries=entries)
        for done in answer.get("Successful", []):
            message_id = messages[int(done["Id"])][0]
            self._held.pop(message_id, None)
            self._gone.add(message_id)
        return len(answer.get("Failed", []))

    def release(self) -> None:
        """Show what is still held to others again; what fails comes back by itself."""
        handles = list(self._held.values())
        self._held = {}
        starts = range(0, len(handles), ENTRIES_PER_REQUEST)
        with ThreadPoolExecutor(8) as pool:
            # Without a network each request takes its time to fail, and that makes hours of thousands of messages.
            all(pool.map(lambda start: self._show(handles[start : start + ENTRIES_PER_REQUEST]), starts))

    def _show(self, handles: list[str]) -> bool:
        """Return whether SQS can be reached."""
        from botocore.exceptions import BotoCoreError, ClientError

        entries = [
            {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": 0} for index, handle in enumerate(handles)
        ]
        try:
            self.sqs.change_message_visibility_batch(QueueUrl=self.url, Entries=entries)
        except ClientError:
            return True
        except BotoCoreError:
            return False
        return True


def send(
    sqs: Any, url: str, messages: Iterable[SqsMessage], entry: Callable[[SqsMessage], dict[str, Any]], *, ordered: bool
) -> tuple[Sent[SqsMessage], tuple[SqsMessage, ...]]:
    """Send a page of messages, in as few requests as may be.

    Returns:
        What became of them; and those that SQS took for a repetition of what it got within five minutes, and dropped.

    Args:
        sqs: client of SQS.
        url: of the queue they are for.
        messages: in their order.
        entry: makes of a message what SQS is to get.
        ordered: whether the queue is a FIFO queue: then a request holds one message of each group, and what comes
            after a refused one in its group is not sent.
    """
    accepted: list[SqsMessage] = []
    refused: list[tuple[SqsMessage, str]] = []
    repeated: list[SqsMessage] = []
    blocked: set[str] = set()
    for request in _requests(messages, ordered=ordered):
        sending = [message for message in request if message.group not in blocked]
        refused += [
            (message, "one before it in its group was refused") for message in request if message not in sending
        ]
        taken: dict[int, str] = {}
        reasons = send_batch(sqs, url, {index: entry(message) for index, message in enumerate(sending)}, taken)
        for index, message in enumerate(sending):
            if index in reasons:
                refused.append((message, reasons[index]))
                blocked |= {message.group} if ordered else set()
            elif ordered and taken[index] == message.message_id:
                repeated.append(message)
            else:
                accepted.append(message)
    return Sent(tuple(accepted), tuple(refused)), tuple(repeated)


def entry(message: SqsMessage, deduplication_id: str, *, with_reason: bool) -> dict[str, Any]:
    """Return what SQS is to get of a message.

    Args:
        message: as it was received or exported.
        deduplication_id: of a FIFO queue's message; empty for a standard queue.
        with_reason: whether why it failed goes with it.
    """
    attributes = {
        name: value for name, value in message.attributes.items() if with_reason or not name.startswith("Failure")
    }
    made: dict[str, Any] = {"MessageBody": message.body}
    if attributes:
        made["MessageAttributes"] = attributes
    if message.group:
        made["MessageGroupId"] = message.group
    if deduplication_id:
        made["MessageDeduplicationId"] = deduplication_id
    return made


def _requests(messages: Iterable[SqsMessage], *, ordered: bool) -> Iterator[list[SqsMessage]]:
    """Divide messages into what one request takes."""
    request: list[SqsMessage] = []
    so_far_bytes = 0
    for message in messages:
        own_bytes = size_bytes({"MessageBody": message.body, "MessageAttributes": message.attributes})
        full = len(request) == ENTRIES_PER_REQUEST or so_far_bytes + own_bytes > MAX_REQUEST_BYTES
        if request and (full or (ordered and message.group in {other.group for other in request})):
            yield request
            request, so_far_bytes = [], 0
        request.append(message)
        so_far_bytes += own_bytes
    if request:
        yield request
