"""Receiving from Amazon SQS without ending, stalling or waiting.

What stock kombu 5.7 does, and this does not: one HTTP 503 or refused connection ends the worker, one poll that is never
answered stops all polling for good, one message that cannot be read ends the worker again and again, a freed slot
waits for the polling interval, and messages of one FIFO group run side by side.

It replaces methods that kombu does not promise to keep. Hence the narrow range of versions in pyproject.toml, and
tests/library/test_relied_on.py of the template.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.exceptions import WorkerShutdown
from kombu.transport import SQS

from .batching import ENTRIES_PER_REQUEST
from .calls import Answer, Calls, Failure

logger = logging.getLogger(__name__)

# Its published type says nothing of what is replaced here.
BaseChannel: Any = SQS.Channel

ANSWER_MARGIN_SECONDS = 5
"""What a long poll may take beyond the time it asked for; kombu waits for ever."""

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10
"""Pauses after failed polls double from the first to the longest, so that recovery takes less than one long poll."""

POLL_MARGIN_SECONDS = 20
"""What a poll may take beyond a long poll's time: a late answer, and the longest pause after one that failed."""

WHAT_TO_DO = {
    "AWS.SimpleQueueService.NonExistentQueue": "create the queue, or check ENVIRONMENT and QUEUE_URL_BASE",
    "QueueDoesNotExist": "create the queue, or check ENVIRONMENT and QUEUE_URL_BASE",
    "AccessDenied": "let this role or user receive, delete and hide messages of this queue",
    "AccessDeniedException": "let this role or user receive, delete and hide messages of this queue",
    "InvalidClientTokenId": "check the credentials",
    "UnrecognizedClientException": "check the credentials",
    "SignatureDoesNotMatch": "check the credentials, and this machine's clock",
}
"""Errors that do not heal by waiting when a worker has just started, and the cure of each."""


class PollingChannel(BaseChannel):  # type: ignore[misc]
    """A channel that keeps polling, as often as there is room and no oftener."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.last_answer: float | None = None
        """When a poll was answered last, in seconds of the monotonic clock."""
        self._calls: Calls | None = None
        self._consumers_of: dict[str, tuple[str, Callable[[Any], object]]] = {}
        """Of each queue it receives from the consumer's tag, and what takes its messages."""
        self._polling: set[str] = set()
        self._waiting_for_room: set[str] = set()
        self._failures: dict[str, int] = {}
        self._ever_answered: set[str] = set()

    @property
    def calls(self) -> Calls:
        """What makes requests to SQS."""
        if self._calls is None:
            self._calls = Calls(self.hub, self.region)
        return self._calls

    @property
    def consuming(self) -> bool:
        """Whether it receives from any queue; a worker that stops has cancelled its consumers."""
        return bool(self._consumers_of)

    @property
    def awaits_answers(self) -> bool:
        """Whether it polls: the worker is not stopping, and does not hold all the messages it may."""
        return self.consuming and not self._waiting_for_room

    @property
    def answer_due_seconds(self) -> float:
        """When the answer to a poll is overdue."""
        return float(self.wait_time_seconds + POLL_MARGIN_SECONDS)

    def soon(self, call: Any, *args: Any) -> None:
        """Have the event loop call something next.

        Not by `hub.call_soon`: what that is told by something that it calls itself, it calls after the next event only.
        """
        self.hub.call_later(0, call, *args)

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:
        """Begin to receive from a queue."""
        self._consumers_of[queue] = (consumer_tag, callback)
        return super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)

    def basic_cancel(self, consumer_tag: str) -> Any:
        """Receive no more for a consumer."""
        self._consumers_of = {queue: of for queue, of in self._consumers_of.items() if of[0] != consumer_tag}
        return super().basic_cancel(consumer_tag)

    def cancel_all(self) -> None:
        """Receive no more."""
        for consumer_tag, _ in list(self._consumers_of.values()):
            self.basic_cancel(consumer_tag)

    def _schedule_queue(self, queue: str) -> None:
        """Poll a queue if there is room for messages; kombu calls this to begin with."""
        if queue not in self._consumers_of or queue in self._polling:
            return
        if not self._has_room(queue):
            # No timer: whatever makes room starts the next poll at once.
            self._waiting_for_room.add(queue)
            return
        self._polling.add(queue)
        # One receive may bring several messages of one group, which would run side by side. SQS
        # brings no other of a group that is being worked on, so one at a time keeps the order, and
        # groups still run in parallel.
        count = 1 if queue.endswith(".fifo") else min(ENTRIES_PER_REQUEST, self._room() or ENTRIES_PER_REQUEST)
        url = self.predefined_queues[queue]["url"]
        request = {
            "QueueUrl": url,
            "MaxNumberOfMessages": count,
            "WaitTimeSeconds": self.wait_time_seconds,
            "MessageSystemAttributeNames": ["ApproximateReceiveCount", "MessageGroupId"],
            # Whoever sent them may need them, once the message has been in the dead-letter queue.
            "MessageAttributeNames": ["All"],
        }
        self.calls.call(
            "ReceiveMessage", request, partial(self._polled, queue, url), self.wait_time_seconds + ANSWER_MARGIN_SECONDS
        )

    def _room(self) -> int | None:
        """Return how many more messages may be held; nothing if that is not limited."""
        room: int | None = self.qos.can_consume_max_estimate()
        return room

    def _has_room(self, queue: str) -> bool:
        """Tell whether a poll is worth its request."""
        room = self._room()
        return room is None or room >= self.predefined_queues[queue]["messages_per_poll"]

    def _polled(self, queue: str, url: str, outcome: Answer | Failure) -> None:
        self._polling.discard(queue)
        if isinstance(outcome, Failure):
            self._poll_failed(queue, outcome)
            return
        if self._failures.pop(queue, 0):
            logger.info("Polls of %s are answered again", queue)
        self._ever_answered.add(queue)
        self.last_answer = time.monotonic()
        received = outcome.get("Messages") or []
        self._take(queue, url, received)
        if received:
            self.soon(self._schedule_queue, queue)
        else:
            self.hub.call_later(self.connection.polling_interval, self._schedule_queue, queue)

    def _poll_failed(self, queue: str, failure: Failure) -> None:
        if failure.code in WHAT_TO_DO and queue not in self._ever_answered:
            self.give_up(queue, failure.code, str(failure))
            return
        count = self._failures[queue] = self._failures.get(queue, 0) + 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(count - 1, 10)) * random.uniform(0.5, 1)  # noqa: S311
        logger.warning("Poll %d of %s failed, next in %.1f s: %s", count, queue, pause, failure)
        self.hub.call_later(pause, self._schedule_queue, queue)

    def give_up(self, queue: str, code: str, text: str) -> None:
        """End the worker over what does not heal by itself, with a word on what to do."""
        logger.critical("Cannot work on %s: %s. To fix it, %s", queue, text, WHAT_TO_DO[code])
        self.soon(_end_worker)

    def _take(self, queue: str, url: str, received: list[dict[str, Any]]) -> None:
        """Hand messages to the worker."""
        if queue not in self._consumers_of:  # It has stopped consuming while the poll was under way.
            self.release_all({message["ReceiptHandle"]: (queue, url) for message in received})
            return
        _, callback = self._consumers_of[queue]
        for message in received:
            try:
                payload = self._message_to_python(message, queue, url)
                now = time.monotonic()
                payload["properties"]["delivery_info"].update(
                    # Where it was received, which is not where it was sent once somebody has moved it.
                    routing_key=queue,
                    received_at=now,
                    visible_at=now + self.predefined_queues[queue]["visibility_timeout_seconds"],
                    receive_count=receive_count(message),
                )
                taken = self.Message(payload, channel=self)
                self.qos.append(taken, taken.delivery_tag)
                callback(taken)
            except Exception:
                # It must not take the worker down: left alone, it is delivered again, and goes to
                # the dead-letter queue in the end.
                logger.exception("message %s of queue %s cannot be read", message.get("MessageId"), queue)
                self.release_unread(queue, url, message)

    def release_unread(self, queue: str, url: str, message: dict[str, Any]) -> None:
        """Release a message that cannot be read."""
        raise NotImplementedError

    def release_all(self, held: dict[str, tuple[str, str]]) -> None:
        """Release messages at once, by receipt handle, each with its queue and that queue's URL."""
        raise NotImplementedError

    def basic_qos(self, *args: Any, **kwargs: Any) -> None:
        """Change how many messages may be held."""
        super().basic_qos(*args, **kwargs)
        self._room_made()

    def _room_made(self) -> None:
        """Poll at once the queues that waited for room."""
        if self.hub:
            for queue in [queue for queue in self._waiting_for_room if self._has_room(queue)]:
                self._waiting_for_room.discard(queue)
                self.soon(self._schedule_queue, queue)


def receive_count(message: dict[str, Any]) -> int:
    """Return how often SQS has delivered a message, this time included."""
    return int((message.get("Attributes") or {}).get("ApproximateReceiveCount", 1))


def _end_worker() -> None:
    raise WorkerShutdown(1)
