"""Receiving from Amazon SQS, with fixes for crashes and stalls of kombu 5.7.

With kombu alone, one HTTP 503 or refused connection ends the worker, one poll without a response
stops all polling, one undecodable message ends every worker that receives it, a free slot waits for
the polling interval, and messages of one FIFO group run in parallel.

A worker of several queues polls a queue only while the more urgent ones are empty. SQS answers a long
poll at once if there is a message, so one that is not answered at once shows that its queue is empty.

This module overrides private methods of kombu. Therefore pyproject.toml pins a narrow range of
versions, and tests/library/test_relied_on.py of the template checks them.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Collection
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

EMPTY_AFTER_SECONDS = 0.2
"""A long poll that is not answered for this long has found its queue empty."""

EMPTY_FOR_SECONDS = 1
"""How long a queue counts as empty after an empty answer, if it is not polled again for lack of room."""

URGENT_WAIT_SECONDS = 1
"""Wait time of polls while the worker holds messages of less urgent queues.

A message that such a poll returns when all slots are busy waits for the next one to become free,
while another worker may be idle. A short poll makes that rare.
"""

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

    is_controlled = False
    """Whether the worker goes on without consumers, since remote control may have cancelled them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._calls: Calls | None = None
        self._consumers_of: dict[str, tuple[str, Callable[[Any], object]]] = {}
        """Consumer tag and callback of each queue that is being consumed."""
        self._polling: set[str] = set()
        self._waiting: set[str] = set()
        """Queues that are not polled for lack of room, or because a more urgent queue may have messages."""
        self._due_since: dict[str, float] = {}
        """Monotonic time of the last answer for each queue that is polled, or at which it began to be polled."""
        self._empty_until: dict[str, float] = {}
        """Monotonic time until which each queue counts as empty."""
        self._empty_timers: dict[str, Any] = {}
        self._failures: dict[str, int] = {}
        self._ever_answered: set[str] = set()
        self._has_given_up = False
        # With remote control, nothing is polled until it is known what is paused.
        self._paused: Collection[str] | None = None if self.transport_options.get("control_table") else ()

    @property
    def calls(self) -> Calls:
        """The client for requests to SQS."""
        if self._calls is None:
            self._calls = Calls(self.hub, self.region)
        return self._calls

    @property
    def consuming(self) -> bool:
        """Whether the worker is not stopping; one that is has cancelled all consumers."""
        return self.is_controlled or bool(self._consumers_of)

    @property
    def awaits_answers(self) -> bool:
        """Whether it polls: the worker is not stopping, and has room for messages."""
        return self.consuming and bool(self._due_since)

    @property
    def last_answer(self) -> float | None:
        """Monotonic time since which every queue that is polled has answered."""
        return min(self._due_since.values(), default=None)

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
        self._due_since[queue] = time.monotonic()
        return super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)

    def basic_cancel(self, consumer_tag: str) -> Any:
        """Cancel a consumer."""
        self._consumers_of = {queue: of for queue, of in self._consumers_of.items() if of[0] != consumer_tag}
        self._due_since = {queue: since for queue, since in self._due_since.items() if queue in self._consumers_of}
        return super().basic_cancel(consumer_tag)

    def pause(self, queues: Collection[str]) -> None:
        """Poll all queues but these; messages of a poll that is under way are released."""
        self._paused = queues
        self._resume()

    def cancel_all(self) -> None:
        """Cancel all consumers."""
        self.is_controlled = False
        for consumer_tag, _ in list(self._consumers_of.values()):
            self.basic_cancel(consumer_tag)

    def _schedule_queue(self, queue: str) -> None:
        """Poll a queue if there is room for messages, and its turn; kombu calls this when consuming starts."""
        if queue not in self._consumers_of or queue in self._polling:
            return
        if not self._may_poll(queue):
            # No timer: `_resume` starts the next poll.
            self._waiting.add(queue)
            if self._paused is not None:  # Otherwise a worker that never learns what is paused would seem alive.
                self._due_since.pop(queue, None)
            return
        self._polling.add(queue)
        self._due_since.setdefault(queue, time.monotonic())
        wait_seconds = self.wait_time_seconds
        if less_urgent := self._others(queue, more_urgent=False):
            self._empty_timers[queue] = self.hub.call_later(EMPTY_AFTER_SECONDS, self._found_empty, queue, math.inf)
            if any(message.delivery_info["routing_key"] in less_urgent for message in self.qos.held.values()):
                wait_seconds = min(wait_seconds, URGENT_WAIT_SECONDS)
        # One receive may return several messages of one FIFO group, which would run in parallel. SQS
        # returns no message of a group that has one in flight, so one message per receive keeps the
        # order, and groups still run in parallel.
        count = 1 if queue.endswith(".fifo") else self._room()
        url = self.predefined_queues[queue]["url"]
        request = {
            "QueueUrl": url,
            "MaxNumberOfMessages": count,
            "WaitTimeSeconds": wait_seconds,
            "MessageSystemAttributeNames": ["ApproximateReceiveCount", "MessageGroupId", "SentTimestamp"],
            # So that they can be kept when the message is dead-lettered.
            "MessageAttributeNames": ["All"],
        }
        if not self.predefined_queues[queue]["queue"].managed:
            # Its owner may have set another one.
            request["VisibilityTimeout"] = self.predefined_queues[queue]["visibility_timeout_seconds"]
        self.calls.call(
            "ReceiveMessage", request, partial(self._polled, queue, url), wait_seconds + ANSWER_MARGIN_SECONDS
        )

    def _others(self, queue: str, *, more_urgent: bool) -> set[str]:
        """Return the queues being consumed, and not paused, that are more, or less, urgent than a queue."""
        position = self.predefined_queues[queue]["position"]
        return {
            other
            for other in self._consumers_of.keys() - set(self._paused or ())
            if other != queue and (self.predefined_queues[other]["position"] < position) == more_urgent
        }

    def _may_poll(self, queue: str) -> bool:
        """Return whether a queue is not paused, has room, and all more urgent queues count as empty."""
        if self._paused is None or queue in self._paused:
            return False
        now = time.monotonic()
        more_urgent = self._others(queue, more_urgent=True)
        return self._has_room(queue) and all(now < self._empty_until.get(other, 0) for other in more_urgent)

    def _found_empty(self, queue: str, until: float) -> None:
        """Count a queue as empty until a monotonic time, and poll the less urgent ones."""
        self._empty_until[queue] = until
        self._resume()

    def _room(self) -> int:
        """Return how many messages one receive may return at most."""
        room: int | None = self.qos.can_consume_max_estimate()
        return ENTRIES_PER_REQUEST if room is None else min(ENTRIES_PER_REQUEST, room)

    def _has_room(self, queue: str) -> bool:
        """Return whether there is room for `messages_per_poll` messages."""
        wanted = int(self.predefined_queues[queue]["messages_per_poll"])
        # A worker that was started with other options may never have so much room.
        return self._room() >= min(wanted, self.qos.prefetch_count or wanted)

    def _polled(self, queue: str, url: str, outcome: Answer | Failure) -> None:
        self._polling.discard(queue)
        if timer := self._empty_timers.pop(queue, None):
            timer.cancel()
        if isinstance(outcome, Failure):
            self._found_empty(queue, math.inf)  # A queue that fails does not stop the others.
            self._poll_failed(queue, outcome)
            return
        if self._failures.pop(queue, 0):
            logger.info("polls of queue %s succeed again", queue)
        self._ever_answered.add(queue)
        now = time.monotonic()
        if queue in self._consumers_of:
            self._due_since[queue] = now
        received = outcome.get("Messages") or []
        self._take(queue, url, received)
        if received:
            self._empty_until.pop(queue, None)
            self.soon(self._schedule_queue, queue)
        else:
            self._found_empty(queue, now + EMPTY_FOR_SECONDS)
            self.hub.call_later(self.connection.polling_interval, self._schedule_queue, queue)

    def _poll_failed(self, queue: str, failure: Failure) -> None:
        if failure.code in REMEDIES and queue not in self._ever_answered:
            self.give_up(f"consume queue {queue}", str(failure), REMEDIES[failure.code])
            return
        count = self._failures[queue] = self._failures.get(queue, 0) + 1
        backoff = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(count - 1, 10)) * random.uniform(0.5, 1)  # noqa: S311
        logger.warning("poll of queue %s failed (%d in a row), retrying in %.1f s: %s", queue, count, backoff, failure)
        self.hub.call_later(backoff, self._schedule_queue, queue)

    def give_up(self, what: str, text: str, remedy: str) -> None:
        """Log a permanent error and its remedy, and end the worker.

        Args:
            what: what the worker cannot do.
            text: the error.
            remedy: how to fix it.
        """
        logger.critical("cannot %s: %s. To fix it, %s", what, text.rstrip("."), remedy)
        if not self._has_given_up:  # Another error may have ended the worker already.
            self._has_given_up = True
            self.soon(_end_worker)

    def _take(self, queue: str, url: str, received: list[dict[str, Any]]) -> None:
        """Pass messages to the worker."""
        if queue not in self._consumers_of or queue in (self._paused or ()):  # Since this poll began.
            self.release_all({message["ReceiptHandle"]: (queue, url) for message in received})
            return
        _, callback = self._consumers_of[queue]
        for message in received:
            try:
                payload = self._message_to_python(message, queue, url)
                now = time.monotonic()
                if group := (message.get("Attributes") or {}).get("MessageGroupId"):
                    payload["properties"].setdefault("MessageGroupId", group)
                payload["properties"]["delivery_info"].update(
                    # The queue that it was received from; a redriven message was sent elsewhere.
                    routing_key=queue,
                    received_at=now,
                    visible_at=now + self.predefined_queues[queue]["visibility_timeout_seconds"],
                    receive_count=receive_count(message),
                    sent_at=sent_at(message),
                )
                kombu_message = self.Message(payload, channel=self)
                self.qos.append(kombu_message, kombu_message.delivery_tag)
                callback(kombu_message)
            except Exception:
                # It must not end the worker; it is released, and finally dead-lettered.
                logger.exception("message %s of queue %s cannot be decoded", message.get("MessageId"), queue)
                self.release_unread(queue, url, message)

    def _prepare_json_payload(self, text: str) -> dict[str, Any]:
        """Return a message as a dictionary, with the properties that producers in other languages leave out.

        Without them, kombu does not take it for a message of Celery.
        """
        payload: dict[str, Any] = super()._prepare_json_payload(text)
        if isinstance(payload.get("headers"), dict):
            payload.setdefault("properties", {})
        return payload

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
        self._resume()

    def _resume(self) -> None:
        """Poll the queues that waited and may be polled now, the most urgent first."""
        if self.hub:
            for queue in sorted(self._waiting, key=lambda queue: self.predefined_queues[queue]["position"]):
                if self._may_poll(queue):
                    self._waiting.discard(queue)
                    self.soon(self._schedule_queue, queue)


def receive_count(message: dict[str, Any]) -> int:
    """Return the receive count of a message, including this receive."""
    return int((message.get("Attributes") or {}).get("ApproximateReceiveCount", 1))


def sent_at(message: dict[str, Any]) -> float | None:
    """Return the Unix time at which SQS accepted a message; None if it does not say."""
    milliseconds = (message.get("Attributes") or {}).get("SentTimestamp")
    return None if milliseconds is None else int(milliseconds) / 1000


def _end_worker() -> None:
    raise WorkerShutdown(1)
