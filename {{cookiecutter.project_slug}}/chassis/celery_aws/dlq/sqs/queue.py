"""Peeking at dead-letter messages, and sending them without losing one.

A message is deleted only after SQS has accepted its copy, or after it is written to disk. If a command
is killed in between, the message exists twice.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...brokers.sqs.batching import ENTRIES_PER_REQUEST, MAX_REQUEST_BYTES, send_batch, size_bytes
from ...contract import Queue
from ...durations import counted
from ...environment.sqs import Environment
from ..message import Sent
from .messages import SqsMessage, imported, received

WAIT_SECONDS = 2
"""A long poll queries all servers of SQS, so an empty response means that no message is visible."""


RUNNING = ("RUNNING", "CANCELLING")
"""States of a redrive that has not ended."""


class RedriveRunningError(RuntimeError):
    """SQS starts no other redrive before this one has ended."""


class DeadLetterQueue:
    """The dead-letter queue of one queue."""

    PAGE = ENTRIES_PER_REQUEST
    """Number of messages to send at a time."""

    def __init__(self, env: Environment, queue: Queue) -> None:
        self.env = env
        self.queue = queue
        self.name = self.env.name(self.queue, dead=True)
        self.target = self.env.name(self.queue)
        self.url = self.env.url(self.queue, dead=True)
        self.depth = self.env.depth(self.queue, dead=True)
        """Approximate number of messages."""
        self.ordered = self.name.endswith(".fifo")
        self.unseen = 0
        """Number of messages that a peek did not show."""
        self._resent: set[bytes] = set()
        """Digests of the bodies that were resent."""

    @property
    def why_unseen(self) -> str:
        """Why a peek may not show all messages."""
        if self.ordered:
            return "SQS returns ten messages of a group at a time, or another consumer holds them"
        return "another consumer holds them; try again in a minute"

    def peek(self) -> Peek:
        """Return a peek at all messages."""
        return Peek(self.env.sqs, self.url, self.depth)

    def resend(self, messages: list[SqsMessage]) -> Sent[SqsMessage]:
        """Send messages to their original queue, each once; those that SQS drops as duplicates count as sent.

        A message that was resent and is here again has failed again, perhaps before the peek has ended.
        It is in neither part of the outcome: to resend it until it succeeds could take for ever.
        """
        messages = [message for message in messages if _digest(message) not in self._resent]
        # The deduplication id follows from the message id. If this command is killed between sending and
        # deleting, and repeated within five minutes, SQS drops the duplicate. After another failure, the
        # message has another id; with edited arguments, it is another message.
        outcome = self._send(
            messages,
            to_dead=False,
            make=lambda m: entry(m, _id_of_resent(m) if self.ordered else "", with_reason=False),
        )
        self._resent.update(map(_digest, outcome.accepted))
        return outcome

    def put(self, messages: list[SqsMessage], *, to_dead: bool) -> Sent[SqsMessage]:
        """Send exported messages to the dead-letter queue, or to the original queue."""
        # SQS drops a message whose deduplication id it has seen in the last five minutes, and does not say so. A file
        # can be imported twice, or soon after its export, so no message has the id that it had before.
        return self._send(
            messages,
            to_dead=to_dead,
            make=lambda m: entry(m, str(uuid.uuid4()) if self.ordered else "", with_reason=to_dead),
        )

    def _send(
        self, messages: list[SqsMessage], *, to_dead: bool, make: Callable[[SqsMessage], dict[str, Any]]
    ) -> Sent[SqsMessage]:
        return send(self.env.sqs, self.env.url(self.queue, dead=to_dead), messages, make, ordered=self.ordered)

    def imported(self, line: str) -> SqsMessage:
        """Parse an exported line.

        Raises:
            ValueError: the line is invalid, or lacks the group that a FIFO queue requires.
        """
        message = imported(line)
        if self.ordered and not message.group:
            raise ValueError("a FIFO queue requires a group")
        return message

    def moves(self) -> list[dict[str, Any]]:
        """Return the recent redrives, newest first."""
        arn = self.env.arn(self.queue, dead=True)
        found = self.env.sqs.list_message_move_tasks(SourceArn=arn, MaxResults=10).get("Results", [])
        return sorted(found, key=lambda move: -move["StartedTimestamp"])

    def running_move(self) -> dict[str, Any] | None:
        """Return the redrive that is running; SQS runs one at a time."""
        return next((move for move in self.moves() if move["Status"] in RUNNING), None)

    def start_move(self, rate: int | None = None) -> None:
        """Have SQS move all messages to the original queue.

        Args:
            rate: maximum number of messages per second; by default SQS decides.
        """
        # With a destination, because SQS does not know the source of a message that a worker dead-lettered.
        request = {"SourceArn": self.env.arn(self.queue, dead=True), "DestinationArn": self.env.arn(self.queue)}
        self.env.sqs.start_message_move_task(**request, **({"MaxNumberOfMessagesPerSecond": rate} if rate else {}))

    def redrive(self) -> str:
        """Have SQS move all messages to the original queue; return a message for the operator.

        Raises:
            RedriveRunningError: a redrive is running.
        """
        if self.running_move():
            raise RedriveRunningError(f"a redrive of {self.name} is running")
        self.start_move()
        return f"SQS moves about {counted(self.depth, 'message')} to {self.target}"

    def close(self) -> None:
        """Do nothing; clients of AWS are shared."""

    def purge(self) -> tuple[int, str]:
        """Delete all messages; return their approximate number and a message for the operator."""
        self.env.sqs.purge_queue(QueueUrl=self.url)
        return self.depth, f"about {counted(self.depth, 'message')} deleted; SQS takes up to a minute"


class Peek:
    """All messages of a queue, page by page; released at the end of the `with` block.

    If the process is killed, its messages stay invisible for `visibility_seconds`. On FIFO queues, SQS
    returns at most ten messages of a group until those are deleted.
    """

    def __init__(self, sqs: Any, url: str, depth: int) -> None:
        self.sqs = sqs
        self.url = url
        self.visibility_seconds = 30 + depth // 100
        """Visibility timeout: long enough to receive the last message before the first is redelivered."""
        self.seen = 0
        """Number of messages seen so far."""
        self._held: dict[str, str] = {}
        """Receipt handles of the messages to release, by message id."""
        self._deleted: set[str] = set()
        """Ids of the messages that were deleted."""

    def __enter__(self) -> Peek:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def pages(self) -> Iterator[list[SqsMessage]]:
        """Yield pages of at most ten messages until the queue is exhausted."""
        nothing_new = 0
        while nothing_new < 3:  # Otherwise redelivered messages could keep it going for ever.
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
            again = [message for message in new if message["MessageId"] in self._deleted]
            new = [message for message in new if message["MessageId"] not in self._deleted]
            if again:  # SQS may deliver a message again after it was deleted.
                self._delete([(message["MessageId"], message["ReceiptHandle"]) for message in again])
            nothing_new = 0 if new else nothing_new + 1
            if new:
                self.seen += len(new)
                yield [received(message) for message in new]

    def delete(self, messages: Sequence[SqsMessage]) -> int:
        """Delete messages; return how many of them SQS did not delete."""
        return self._delete([(message.message_id, message.receipt_handle) for message in messages])

    def _delete(self, messages: Sequence[tuple[str, str]]) -> int:
        if not messages:
            return 0
        entries = [{"Id": str(index), "ReceiptHandle": handle} for index, (_, handle) in enumerate(messages)]
        answer = self.sqs.delete_message_batch(QueueUrl=self.url, Entries=entries)
        for done in answer.get("Successful", []):
            message_id = messages[int(done["Id"])][0]
            self._held.pop(message_id, None)
            self._deleted.add(message_id)
        return len(answer.get("Failed", []))

    def release(self) -> None:
        """Make all held messages visible again; the others become visible after their visibility timeout."""
        handles = list(self._held.values())
        self._held = {}
        starts = range(0, len(handles), ENTRIES_PER_REQUEST)
        with ThreadPoolExecutor(8) as pool:
            # `all` stops at the first request that cannot reach SQS; thousands of timeouts would take hours.
            all(pool.map(lambda start: self._make_visible(handles[start : start + ENTRIES_PER_REQUEST]), starts))

    def _make_visible(self, handles: list[str]) -> bool:
        """Make messages visible again; return whether SQS could be reached."""
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


def _digest(message: SqsMessage) -> bytes:
    return hashlib.sha256(message.body.encode()).digest()


def _id_of_resent(message: SqsMessage) -> str:
    return f"{message.message_id}:{_digest(message).hex()[:16]}:resent"


def send(
    sqs: Any, url: str, messages: Iterable[SqsMessage], entry: Callable[[SqsMessage], dict[str, Any]], *, ordered: bool
) -> Sent[SqsMessage]:
    """Send a page of messages, in batches.

    Args:
        sqs: a boto3 client of SQS.
        url: URL of the destination queue.
        messages: the messages, in order.
        entry: converts a message to an entry of SendMessageBatch.
        ordered: whether it is a FIFO queue. Then a request has one message per group, and the messages
            of a group that follow a refused one are not sent.
    """
    accepted: list[SqsMessage] = []
    refused: list[tuple[SqsMessage, str]] = []
    blocked: set[str] = set()
    for request in _requests(messages, ordered=ordered):
        sending = [message for message in request if message.group not in blocked]
        refused += [
            (message, "an earlier message of its group was refused") for message in request if message not in sending
        ]
        reasons = send_batch(sqs, url, {index: entry(message) for index, message in enumerate(sending)}, {})
        for index, message in enumerate(sending):
            if index in reasons:
                refused.append((message, reasons[index]))
                blocked |= {message.group} if ordered else set()
            else:
                accepted.append(message)
    return Sent(tuple(accepted), tuple(refused))


def entry(message: SqsMessage, deduplication_id: str, *, with_reason: bool) -> dict[str, Any]:
    """Return a message as an entry of SendMessageBatch, without its `Id`.

    Args:
        message: the message, as received or imported.
        deduplication_id: deduplication id; empty for a standard queue.
        with_reason: keep the reason of its failure.
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
    """Divide messages into requests."""
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
