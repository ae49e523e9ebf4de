"""Looking at many messages without consuming them, and sending them on without losing one.

The order is always the same: the new message is accepted, or the line is on the disk, and only then is the old message
deleted. Whoever kills a command in between finds a message twice, and never none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...batching import ENTRIES_PER_REQUEST, MAX_REQUEST_BYTES, send_batch, size_bytes
from .messages import Message, received

WAIT_SECONDS = 2
"""A long poll asks every server of SQS, so one that brings nothing has seen that there is nothing."""


@dataclass(frozen=True)
class Selection:
    """Which messages a command is about; all of them, unless told otherwise."""

    ids: tuple[str, ...] = ()
    """Beginnings of the ids of tasks or messages."""
    task: str = ""
    """Name of the task, in full or its end: `high.count_words`."""
    older_than_seconds: float = 0

    @property
    def everything(self) -> bool:
        """Whether it leaves nothing out."""
        return self == Selection()

    def has(self, message: Message) -> bool:
        """Return whether a message is selected."""
        if self.ids and not any(own.startswith(self.ids) for own in (message.id, message.message_id)):
            return False
        if self.task and not f".{message.task}".endswith(f".{self.task}"):
            return False
        return message.age_seconds >= self.older_than_seconds


class Look:
    """All messages of a queue, page by page, hidden from others until the `with` block ends; then given back.

    A process that is killed gives nothing back: its messages are hidden for `hidden_seconds`.

    On FIFO queues SQS shows ten messages of a group at the most, and no further one before those are deleted.
    """

    def __init__(self, sqs: Any, url: str, depth: int) -> None:
        self.sqs = sqs
        self.url = url
        self.hidden_seconds = 30 + depth // 100
        """Long enough to see the last message before the first one comes back."""
        self.seen = 0
        """Messages seen so far."""
        self._held: dict[str, str] = {}
        """Receipt handles of what is to be given back, by message id."""
        self._gone: set[str] = set()

    def __enter__(self) -> Look:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def pages(self) -> Iterator[list[Message]]:
        """Yield the messages, ten at the most at a time, until there are no more."""
        nothing_new = 0
        while nothing_new < 3:  # A queue whose messages come back meanwhile would never end.
            answer = self.sqs.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=ENTRIES_PER_REQUEST,
                WaitTimeSeconds=WAIT_SECONDS,
                VisibilityTimeout=self.hidden_seconds,
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

    def delete(self, messages: Sequence[Message]) -> int:
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

    def give_back(self) -> None:
        """Show what is still held to others again; what fails comes back by itself."""
        handles = list(self._held.values())
        self._held = {}
        starts = range(0, len(handles), ENTRIES_PER_REQUEST)
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda start: self._show(handles[start : start + ENTRIES_PER_REQUEST]), starts):
                pass

    def _show(self, handles: list[str]) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        entries = [
            {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": 0} for index, handle in enumerate(handles)
        ]
        with suppress(BotoCoreError, ClientError):
            self.sqs.change_message_visibility_batch(QueueUrl=self.url, Entries=entries)


@dataclass(frozen=True)
class Sent:
    """What became of messages that were to be sent."""

    accepted: tuple[Message, ...]
    refused: tuple[tuple[Message, str], ...]
    """Those SQS did not take, with its reason."""
    repeated: tuple[Message, ...] = ()
    """Those of them that SQS took for a repetition of what it got within five minutes, and dropped."""


def send(
    sqs: Any, url: str, messages: Iterable[Message], entry: Callable[[Message], dict[str, Any]], *, ordered: bool
) -> Sent:
    """Send a page of messages, in as few requests as may be.

    Args:
        sqs: client of SQS.
        url: of the queue they are for.
        messages: in their order.
        entry: makes of a message what SQS is to get.
        ordered: whether the queue is a FIFO queue: then a request holds one message of each group, and what comes
            after a refused one in its group is not sent.
    """
    accepted: list[Message] = []
    refused: list[tuple[Message, str]] = []
    repeated: list[Message] = []
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
    return Sent(tuple(accepted), tuple(refused), tuple(repeated))


def entry(message: Message, deduplication_id: str, *, with_reason: bool) -> dict[str, Any]:
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


def _requests(messages: Iterable[Message], *, ordered: bool) -> Iterator[list[Message]]:
    """Divide messages into what one request takes."""
    request: list[Message] = []
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
