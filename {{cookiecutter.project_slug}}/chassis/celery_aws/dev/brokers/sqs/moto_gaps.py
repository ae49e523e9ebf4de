"""Fills in what moto lacks of SQS.

Each gap names what AWS does. https://docs.getmoto.org/en/latest/docs/services/sqs.html
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
"""moto goes on with a long poll whose client is gone, and hands it the next message; that message
is then hidden for its whole visibility timeout. AWS notices. Short polls keep the harm small."""

_moves: list[_Move] = []


def fill() -> None:
    """Change moto, in this process."""
    SQSBackend.receive_message = _short_poll(SQSBackend.receive_message)  # type: ignore[method-assign]
    SQSResponse.start_message_move_task = _start_message_move_task  # type: ignore[attr-defined]
    SQSResponse.list_message_move_tasks = _list_message_move_tasks  # type: ignore[attr-defined]
    SQSResponse.cancel_message_move_task = _cancel_message_move_task  # type: ignore[attr-defined]
    Queue.delete_message = one_at_a_time(Queue.delete_message)  # type: ignore[method-assign]
    _hurry()


def _hurry() -> None:
    """Let thousands of messages take seconds: moto asks for the time many times for each, at every request."""

    def hidden(queue: Any) -> int:
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
    queue.approximate_number_of_messages_not_visible = property(hidden)
    message_class.had_receipt_handle = had_receipt_handle
    backend_class.is_message_valid_based_on_retention_period = is_kept


def one_at_a_time(delete_message: Any) -> Any:
    """Delete while nothing else is sent, received or deleted.

    moto makes a new list of what is left. What is sent meanwhile would be lost, and what is deleted would be back.
    """

    def alone(queue: Any, receipt_handle: str) -> None:
        with queue._messages_lock:
            delete_message(queue, receipt_handle)

    return alone


def _short_poll(receive_message: Any) -> Any:
    """Look again and again, one poll at a time.

    moto's own long poll looks once which message groups are in work; one that meanwhile is in another
    poll's answer it would hand out as well.
    """

    def shorter(self: Any, queue: str, count: int, wait_seconds: int, *rest: Any) -> Any:
        end = time.monotonic() + min(wait_seconds, LONGEST_POLL_SECONDS)
        while True:
            began = time.monotonic()
            with self.get_queue(queue)._messages_lock:
                found = receive_message(self, queue, count, 0, *rest)
            if found or time.monotonic() >= end:
                return found
            # Looking through thousands of messages takes its time, which others want as well.
            time.sleep(max(0.02, 3 * (time.monotonic() - began)))

    return shorter


class _Move(threading.Thread):
    """A redrive: moves messages that are visible to another queue, at a rate, until it is done or cancelled.

    AWS counts receives from zero again, gives a new id, and says which were running when it was asked.
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
        """Move."""
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

    def told(self) -> dict[str, Any]:
        """Return what ListMessageMoveTasks says of it; the handle only while it runs."""
        said: dict[str, Any] = {
            "Status": self.status,
            "SourceArn": self.source.queue_arn,
            "DestinationArn": self.target.queue_arn,
            "ApproximateNumberOfMessagesMoved": self.moved,
            "ApproximateNumberOfMessagesToMove": self.total,
            "StartedTimestamp": int(self.started_at * 1000),
        }
        if self.status == "RUNNING":
            said["TaskHandle"] = self.handle
        if self.rate_per_second:
            said["MaxNumberOfMessagesPerSecond"] = self.rate_per_second
        return said


def _start_message_move_task(self: Any) -> ActionResult:
    """Move messages back. AWS runs one such task of a queue at a time."""
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
    mine = [move.told() for move in _moves if move.source.queue_arn == source_arn]
    return ActionResult({"Results": mine[: int(self._get_param("MaxResults") or 1)]})


def _cancel_message_move_task(self: Any) -> ActionResult:
    handle = self._get_param("TaskHandle")
    for move in _moves:
        if move.handle == handle and move.status == "RUNNING":
            move.status = "CANCELLING"
            return ActionResult({"ApproximateNumberOfMessagesMoved": move.moved})
    raise SQSException("ResourceNotFoundException", "The resource that you specified does not exist.")
