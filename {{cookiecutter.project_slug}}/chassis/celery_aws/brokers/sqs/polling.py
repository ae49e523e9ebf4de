"""Receiving from Amazon SQS, with fixes for crashes and stalls of kombu 5.7.

With kombu alone, one HTTP 503 or refused connection ends the worker, one poll without a response
stops all polling, one undecodable message ends every worker that receives it, a free slot waits for
the polling interval, and messages of one FIFO group run in parallel.

This module overrides private methods of kombu. Therefore pyproject.toml pins a narrow range of
versions, and tests/library/test_relied_on.py of the template checks them.
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

# The published type lacks what is overridden here.
BaseChannel: Any = SQS.Channel

ANSWER_MARGIN_SECONDS = 5
"""Timeout of a long poll beyond its wait time; kombu has no timeout."""

FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 10
"""The backoff after failed polls doubles up to this; it is shorter than a long poll, for a fast recovery."""

POLL_MARGIN_SECONDS = 20
"""A worker is not alive if no poll succeeded for the wait time plus this: a timeout and the longest backoff."""

REMEDIES = {
    "AWS.SimpleQueueService.NonExistentQueue": "create the queue, or check ENVIRONMENT and QUEUE_URL_BASE",
    "QueueDoesNotExist": "create the queue, or check ENVIRONMENT and QUEUE_URL_BASE",
    "AccessDenied": "allow ReceiveMessage, DeleteMessage and ChangeMessageVisibility for this role or user",
    "AccessDeniedException": "allow ReceiveMessage, DeleteMessage and ChangeMessageVisibility for this role or user",
    "InvalidClientTokenId": "check the credentials",
    "UnrecognizedClientException": "check the credentials",
    "SignatureDoesNotMatch": "check the credentials, and this machine's clock",
}
"""Permanent errors when a worker starts, and how to fix each."""


class PollingChannel(BaseChannel):  # type: ignore[misc]
    """A channel that polls whenever the worker has room for messages."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.last_answer: float | None = None
        """Monotonic time of the last successful poll."""
        self._calls: Calls | None = None
        self._consumers_of: dict[str, tuple[str, Callable[[Any], object]]] = {}
        """Consumer tag and callback of each queue that is being consumed."""
        self._polling: set[str] = set()
        self._waiting_for_room: set[str] = set()
        self._failures: dict[str, int] = {}
        self._ever_answered: set[str] = set()

    @property
    def calls(self) -> Calls:
        """The client for requests to SQS."""
        if self._calls is None:
            self._calls = Calls(self.hub, self.region)
        return self._calls

    @property
    def consuming(self) -> bool:
        """Whether it has consumers; a worker that is stopping has cancelled them."""
        return bool(self._consumers_of)

    @property
    def awaits_answers(self) -> bool:
        """Whether it polls: the worker is not stopping, and has room for messages."""
        return self.consuming and not self._waiting_for_room

    @property
    def answer_due_seconds(self) -> float:
        """Seconds after which a successful poll is overdue."""
        return float(self.wait_time_seconds + POLL_MARGIN_SECONDS)

    def soon(self, call: Any, *args: Any) -> None:
        """Call a function in the next turn of the event loop.

        `hub.call_soon` would wait for another event if it is called from a callback.
        """
        self.hub.call_later(0, call, *args)

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:
        """Start to consume a queue."""
        self._consumers_of[queue] = (consumer_tag, callback)
        return super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)

    def basic_cancel(self, consumer_tag: str) -> Any:
        """Cancel a consumer."""
        self._consumers_of = {queue: of for queue, of in self._consumers_of.items() if of[0] != consumer_tag}
        return super().basic_cancel(consumer_tag)

    def cancel_all(self) -> None:
        """Cancel all consumers."""
        for consumer_tag, _ in list(self._consumers_of.values()):
            self.basic_cancel(consumer_tag)

    def _schedule_queue(self, queue: str) -> None:
        """Poll a queue if there is room for messages; kombu calls this when consuming starts."""
        if queue not in self._consumers_of or queue in self._polling:
            return
        if not self._has_room(queue):
            # No timer: `_room_made` starts the next poll.
            self._waiting_for_room.add(queue)
            return
        self._polling.add(queue)
        # One receive may return several messages of one FIFO group, which would run in parallel. SQS
        # returns no message of a group that has one in flight, so one message per receive keeps the
        # order, and groups still run in parallel.
        count = 1 if queue.endswith(".fifo") else self._room()
        url = self.predefined_queues[queue]["url"]
        request = {
            "QueueUrl": url,
            "MaxNumberOfMessages": count,
            "WaitTimeSeconds": self.wait_time_seconds,
            "MessageSystemAttributeNames": ["ApproximateReceiveCount", "MessageGroupId"],
            # So that they can be kept when the message is dead-lettered.
            "MessageAttributeNames": ["All"],
        }
        self.calls.call(
            "ReceiveMessage", request, partial(self._polled, queue, url), self.wait_time_seconds + ANSWER_MARGIN_SECONDS
        )

    def _room(self) -> int:
        """Return how many messages one receive may return at most."""
        room: int | None = self.qos.can_consume_max_estimate()
        return ENTRIES_PER_REQUEST if room is None else min(ENTRIES_PER_REQUEST, room)

    def _has_room(self, queue: str) -> bool:
        """Return whether there is room for `messages_per_poll` messages."""
        return self._room() >= int(self.predefined_queues[queue]["messages_per_poll"])

    def _polled(self, queue: str, url: str, outcome: Answer | Failure) -> None:
        self._polling.discard(queue)
        if isinstance(outcome, Failure):
            self._poll_failed(queue, outcome)
            return
        if self._failures.pop(queue, 0):
            logger.info("polls of queue %s succeed again", queue)
        self._ever_answered.add(queue)
        self.last_answer = time.monotonic()
        received = outcome.get("Messages") or []
        self._take(queue, url, received)
        if received:
            self.soon(self._schedule_queue, queue)
        else:
            self.hub.call_later(self.connection.polling_interval, self._schedule_queue, queue)

    def _poll_failed(self, queue: str, failure: Failure) -> None:
        if failure.code in REMEDIES and queue not in self._ever_answered:
            self.give_up(queue, failure.code, str(failure))
            return
        count = self._failures[queue] = self._failures.get(queue, 0) + 1
        backoff = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(count - 1, 10)) * random.uniform(0.5, 1)  # noqa: S311
        logger.warning("poll of queue %s failed (%d in a row), retrying in %.1f s: %s", queue, count, backoff, failure)
        self.hub.call_later(backoff, self._schedule_queue, queue)

    def give_up(self, queue: str, code: str, text: str) -> None:
        """Log a permanent error and its remedy, and end the worker."""
        logger.critical("cannot consume queue %s: %s. To fix it, %s", queue, text.rstrip("."), REMEDIES[code])
        self.soon(_end_worker)

    def _take(self, queue: str, url: str, received: list[dict[str, Any]]) -> None:
        """Pass messages to the worker."""
        if queue not in self._consumers_of:  # The consumer was cancelled during the poll.
            self.release_all({message["ReceiptHandle"]: (queue, url) for message in received})
            return
        _, callback = self._consumers_of[queue]
        for message in received:
            try:
                payload = self._message_to_python(message, queue, url)
                now = time.monotonic()
                payload["properties"]["delivery_info"].update(
                    # The queue that it was received from; a redriven message was sent elsewhere.
                    routing_key=queue,
                    received_at=now,
                    visible_at=now + self.predefined_queues[queue]["visibility_timeout_seconds"],
                    receive_count=receive_count(message),
                )
                kombu_message = self.Message(payload, channel=self)
                self.qos.append(kombu_message, kombu_message.delivery_tag)
                callback(kombu_message)
            except Exception:
                # It must not end the worker; it is released, and finally dead-lettered.
                logger.exception("message %s of queue %s cannot be decoded", message.get("MessageId"), queue)
                self.release_unread(queue, url, message)

    def release_unread(self, queue: str, url: str, message: dict[str, Any]) -> None:
        """Release a message that cannot be decoded."""
        raise NotImplementedError

    def release_all(self, held: dict[str, tuple[str, str]]) -> None:
        """Release messages without a backoff.

        Args:
            held: queue and queue URL of each message, by receipt handle.
        """
        raise NotImplementedError

    def basic_qos(self, *args: Any, **kwargs: Any) -> None:
        """Change the prefetch count."""
        super().basic_qos(*args, **kwargs)
        self._room_made()

    def _room_made(self) -> None:
        """Poll the queues that waited for room."""
        if self.hub:
            for queue in [queue for queue in self._waiting_for_room if self._has_room(queue)]:
                self._waiting_for_room.discard(queue)
                self.soon(self._schedule_queue, queue)


def receive_count(message: dict[str, Any]) -> int:
    """Return the receive count of a message, including this receive."""
    return int((message.get("Attributes") or {}).get("ApproximateReceiveCount", 1))


def _end_worker() -> None:
    raise WorkerShutdown(1)
