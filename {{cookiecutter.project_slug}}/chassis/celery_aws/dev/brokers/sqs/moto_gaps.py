"""Patches for differences between moto and SQS.

https://docs.getmoto.org/en/latest/docs/services/sqs.html
"""

from __future__ import annotations

import copy
import threading
import time
import uuid
from typing import Any

from moto.core.responses import ActionResult
from moto.sqs.exceptions import SQSException
from moto.sqs.models import Message, Queue, SQSBackend
from moto.sqs.responses import SQSResponse

LONGEST_POLL_SECONDS = 1
"""Limit for long polls. moto continues a long poll whose client has disconnected, and its next message
is then invisible for the whole visibility timeout; AWS cancels the poll."""

_moves: list[_Move] = []


def fill() -> None:
    """Patch moto in this process."""
    SQSBackend.receive_message = _short_poll(SQSBackend.receive_message)  # type: ignore[method-assign]
    SQSResponse.start_message_move_task = _start_message_move_task  # type: ignore[attr-defined]
    SQSResponse.list_message_move_tasks = _list_message_move_tasks  # type: ignore[attr-defined]
    SQSResponse.cancel_message_move_task = _cancel_message_move_task  # type: ignore[attr-defined]
    Queue.delete_message = one_at_a_time(Queue.delete_message)  # type: ignore[method-assign]
    _speed_up()


def _speed_up() -> None:
    """Make thousands of messages fast: moto reads the clock several times per message and request."""

    def in_flight(queue: Any) -> int:
        now_milliseconds = time.time() * 1_000
        return sum(message.visible_at >= now_milliseconds for message in queue._messages)

    def delayed(queue: Any) -> int:
        now_milliseconds = time.time() * 1_000
        return sum(message.delayed_until > now_milliseconds for message in queue._messages)

    def visible(queue: Any) -> list[Any]:
        now_milliseconds = time.time() * 1_000
        return [m for m in queue._messages if m.visible_at < now_milliseconds and m.delayed_until <= now_milliseconds]

    def had_receipt_handle(message: Any, receipt_handle: str) -> bool:
        return bool(receipt_handle == message.receipt_handle or receipt_handle in message._old_receipt_handles)

    def is_kept(backend: Any, queue_name: str, message: Any) -> bool:
        retention_seconds = int(backend.get_queue(queue_name).message_retention_period)
        return bool(message.sent_timestamp / 1_000 + retention_seconds > time.time())

    queue: Any = Queue
    message_class: Any = Message
    backend_class: Any = SQSBackend
    queue.messages = property(visible)
    queue.approximate_number_of_messages_delayed = property(delayed)
    queue.approximate_number_of_messages_not_visible = property(in_flight)
    message_class.had_receipt_handle = had_receipt_handle
    backend_class.is_message_valid_based_on_retention_period = is_kept


def one_at_a_time(delete_message: Any) -> Any:
    """Return `delete_message` with a lock.

    moto replaces the list of messages without one: a message that is sent meanwhile would be lost,
    and one that is deleted meanwhile would reappear.
    """

    def locked(queue: Any, receipt_handle: str) -> None:
        with queue._messages_lock:
            delete_message(queue, receipt_handle)

    return locked


def _short_poll(receive_message: Any) -> Any:
    """Return `receive_message` with long polls as repeated, locked short polls.

    During a long poll, moto determines only once which message groups have messages in flight, and
    could deliver a message of a group that another poll has received from meanwhile.
    """

    def shorter(self: Any, queue: str, count: int, wait_seconds: int, *rest: Any) -> Any:
        end = time.monotonic() + min(wait_seconds, LONGEST_POLL_SECONDS)
        while True:
            began = time.monotonic()
            with self.get_queue(queue)._messages_lock:
                found = receive_message(self, queue, count, 0, *rest)
            if found or time.monotonic() >= end:
                return found
            # Searching thousands of messages is slow; leave time for other requests.
            time.sleep(max(0.02, 3 * (time.monotonic() - began)))

    return shorter


class _Move(threading.Thread):
    """A redrive: moves visible messages to another queue, optionally at a rate, until it ends or is cancelled.

    As on AWS, a moved message has a receive count of 0 and a new id.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
    """

    def __init__(self, source: Any, target: Any, rate_per_second: int | None) -> None:
        super().__init__(daemon=True)
        self.source, self.target, self.rate_per_second = source, target, rate_per_second
        self.handle = str(uuid.uuid4())
        self.started_at = time.time()
        self.total = len(source._messages)
        self.moved = 0
        self.status = "RUNNING"

    def run(self) -> None:
        """Move the messages."""
        while self.status == "RUNNING":
            with self.source._messages_lock:
                message = next((each for each in self.source._messages if each.visible), None)
                if message is None:
                    break
                self.source._messages.remove(message)
                self.source.pending_messages.discard(message)
            moved = copy.copy(message)
            moved.id = str(uuid.uuid4())
            moved.approximate_receive_count = 0
            moved.visible_at = 0
            moved._old_receipt_handles = []
            self.target.add_message(moved)
            self.moved += 1
            if self.rate_per_second:
                time.sleep(1 / self.rate_per_second)
        self.status = "COMPLETED" if self.status == "RUNNING" else "CANCELLED"

    def described(self) -> dict[str, Any]:
        """Return the entry of ListMessageMoveTasks; it has a handle only while it runs."""
        entry: dict[str, Any] = {
            "Status": self.status,
            "SourceArn": self.source.queue_arn,
            "DestinationArn": self.target.queue_arn,
            "ApproximateNumberOfMessagesMoved": self.moved,
            "ApproximateNumberOfMessagesToMove": self.total,
            "StartedTimestamp": int(self.started_at * 1000),
        }
        if self.status == "RUNNING":
            entry["TaskHandle"] = self.handle
        if self.rate_per_second:
            entry["MaxNumberOfMessagesPerSecond"] = self.rate_per_second
        return entry


def _start_message_move_task(self: Any) -> ActionResult:
    """Start a redrive; as on AWS, a queue has one at a time."""
    source_arn = self._get_param("SourceArn")
    target_arn = self._get_param("DestinationArn")
    queues = {queue.queue_arn: queue for queue in self.sqs_backend.queues.values()}
    if source_arn not in queues or (target_arn and target_arn not in queues):
        raise SQSException("ResourceNotFoundException", "The resource that you specified does not exist.")
    if any(move.source.queue_arn == source_arn and move.status == "RUNNING" for move in _moves):
        raise SQSException("AWS.SimpleQueueService.UnsupportedOperation", "There is already a task running.")
    source = queues[source_arn]
    sources = self.sqs_backend.list_dead_letter_source_queues(source.name)
    rate = self._get_param("MaxNumberOfMessagesPerSecond")
    move = _Move(source, queues[target_arn] if target_arn else sources[0], int(rate) if rate else None)
    _moves.insert(0, move)
    move.start()
    return ActionResult({"TaskHandle": move.handle})


def _list_message_move_tasks(self: Any) -> ActionResult:
    source_arn = self._get_param("SourceArn")
    entries = [move.described() for move in _moves if move.source.queue_arn == source_arn]
    return ActionResult({"Results": entries[: int(self._get_param("MaxResults") or 1)]})


def _cancel_message_move_task(self: Any) -> ActionResult:
    handle = self._get_param("TaskHandle")
    for move in _moves:
        if move.handle == handle and move.status == "RUNNING":
            move.status = "CANCELLING"
            return ActionResult({"ApproximateNumberOfMessagesMoved": move.moved})
    raise SQSException("ResourceNotFoundException", "The resource that you specified does not exist.")
