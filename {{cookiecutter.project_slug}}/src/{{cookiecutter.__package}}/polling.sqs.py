"""Receiving from Amazon SQS without ending, stalling or waiting.

What stock kombu 5.7 does, and this does not: one HTTP 503 or refused connection ends the worker, one poll that is never
answered stops all polling for good, one message that cannot be read ends the worker again and again, a freed slot
waits for the polling interval, and messages of one FIFO group run side by side.

It replaces methods that kombu does not promise to keep. Hence the narrow range of versions in pyproject.toml, and
tests/test_relied_on.py.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import Any

import pycurl
from botocore.exceptions import BotoCoreError
from celery.exceptions import WorkerShutdown
from kombu.asynchronous.aws.connection import AsyncHTTPSConnection
from kombu.asynchronous.aws.ext import get_response
from kombu.asynchronous.aws.sqs.connection import AsyncSQSConnection
from kombu.transport import SQS
from vine import promise

logger = logging.getLogger(__name__)

# Their published types say nothing of what is replaced here.
BaseChannel: Any = SQS.Channel
BaseHTTPConnection: Any = AsyncHTTPSConnection
BaseConnection: Any = AsyncSQSConnection

CONNECT_TIMEOUT_SECONDS = 5
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


@dataclass(frozen=True)
class Failure:
    """A poll that brought no answer."""

    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


class BoundedHTTPConnection(BaseHTTPConnection):  # type: ignore[misc]
    """A connection whose requests end, answered or not."""

    def getrequest(self) -> Any:
        """Return the request, with limits of time for curl."""
        request = super().getrequest()
        request.on_prepare = self._set_limits
        return request

    def _set_limits(self, curl: Any) -> None:
        curl.setopt(pycurl.CONNECTTIMEOUT, CONNECT_TIMEOUT_SECONDS)
        curl.setopt(pycurl.TIMEOUT, int(self.timeout))
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.NOSIGNAL, 1)


class PollingConnection(BaseConnection):  # type: ignore[misc]
    """Receives messages, and turns every kind of failure into a `Failure`."""

    answer_timeout_seconds: float = 25

    def get_http_connection(self) -> BoundedHTTPConnection:
        """Return a connection for one request."""
        return BoundedHTTPConnection(timeout=self.answer_timeout_seconds, http_client=self._httpclient)

    def _on_list_ready(self, parent: Any, markers: Any, operation: str, response: Any) -> Any:
        model = self.sqs_connection.meta.service_model.operation_model(operation)
        if response.status == self.STATUS_CODE_NETWORK_CONNECT_TIMEOUT_ERROR:  # What curl could not do at all.
            return Failure("no answer", response.reason)
        try:
            _, parsed = get_response(model, response.response)
            if response.status == self.STATUS_CODE_OK:
                return {"Messages": list(parsed.get("Messages") or [])}
            error = parsed.get("Error") or {}
        except Exception as unreadable:  # noqa: BLE001 - whatever came, it was no answer of SQS
            return Failure(f"HTTP {response.status}", f"an answer that is none of SQS: {unreadable!r}")
        return Failure(error.get("Code") or f"HTTP {response.status}", error.get("Message") or "no reason given")


class PollingChannel(BaseChannel):  # type: ignore[misc]
    """A channel that keeps polling, as often as there is room and no oftener."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.last_answer: float | None = None
        """When a poll was answered last, in seconds of the monotonic clock."""
        self._polling: set[str] = set()
        self._waiting_for_room: set[str] = set()
        self._failures: dict[str, int] = {}
        self._ever_answered: set[str] = set()

    @property
    def awaits_answers(self) -> bool:
        """Whether it polls: the worker is not stopping, and does not hold all the messages it may."""
        return bool(self._active_queues) and not self._waiting_for_room

    @property
    def answer_due_seconds(self) -> float:
        """When the answer to a poll is overdue."""
        return float(self.wait_time_seconds + POLL_MARGIN_SECONDS)

    def _schedule_queue(self, queue: str) -> None:
        """Poll a queue if there is room for messages; kombu calls this to begin with."""
        if queue not in self._active_queues or queue in self._polling:
            return
        if not self._has_room(queue):
            # No timer: whatever makes room starts the next poll at once.
            self._waiting_for_room.add(queue)
            return
        self._polling.add(queue)
        # One receive may bring several messages of one group, which would run side by side. SQS
        # brings no other of a group that is being worked on, so one at a time keeps the order, and
        # groups still run in parallel.
        count = 1 if queue.endswith(".fifo") else self._get_message_estimate()
        try:
            self._get_async(queue, count, callback=promise(self._polled, (queue,)))
        except (BotoCoreError, OSError) as error:  # The credentials could not be had just now.
            # boto3 looks for them when a client is made, and one made without never gets any.
            self._predefined_queue_clients.pop(queue, None)
            self._predefined_queue_async_clients.pop(queue, None)
            self._polled(queue, Failure(type(error).__name__, str(error)))

    def _has_room(self, queue: str) -> bool:
        """Tell whether a poll is worth its request."""
        room = self.qos.can_consume_max_estimate()
        return room is None or room >= self.predefined_queues[queue]["messages_per_poll"]

    def _polled(self, queue: str, outcome: Any) -> None:
        self._polling.discard(queue)
        if isinstance(outcome, Failure):
            self._poll_failed(queue, outcome)
        else:
            if self._failures.pop(queue, 0):
                logger.info("Polls of %s are answered again", queue)
            self._ever_answered.add(queue)
            self.last_answer = time.monotonic()
            if outcome:
                self.hub.call_soon(self._schedule_queue, queue)
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
        logger.critical("Cannot work on %s: %s. To mend it, %s", queue, text, WHAT_TO_DO[code])
        self.hub.call_soon(_end_worker)

    def _on_messages_ready(self, queue: str, qname: str, messages: Any) -> Any:
        """Hand messages to the worker; `queue` is the URL, as kombu has it."""
        if isinstance(messages, Failure):
            return messages
        received = messages["Messages"]
        callback = self.connection._callbacks.get(qname)
        if callback is None:
            self._release_messages(queue, qname, received)
            return 0
        for message in received:
            try:
                payload = self._message_to_python(message, qname, queue)
                now = time.monotonic()
                payload["properties"]["delivery_info"].update(
                    # Where it was received, which is not where it was sent once somebody has moved it.
                    routing_key=qname,
                    received_at=now,
                    comes_back_at=now + self.predefined_queues[qname]["visibility_timeout_seconds"],
                    receive_count=receive_count(message),
                )
                callback(payload)
            except Exception:
                # It must not take the worker down: left alone, it is delivered again, and goes to
                # the dead-letter queue in the end.
                logger.exception("A message of %s cannot be read: %s", qname, message.get("MessageId"))
                self.leave_unread(qname, queue, message)
        return len(received)

    def leave_unread(self, queue: str, url: str, message: dict[str, Any]) -> None:
        """Leave a message that cannot be read in its queue."""
        raise NotImplementedError

    def asynsqs(self, queue: str) -> PollingConnection:
        """Return the connection that polls a queue."""
        connections: dict[str, PollingConnection] = self._predefined_queue_async_clients
        if queue not in connections:
            connection = connections[queue] = PollingConnection(
                sqs_connection=self.sqs(queue=queue),
                region=self.region,
                message_system_attribute_names=["ApproximateReceiveCount", "MessageGroupId"],
                # Whoever sent them may need them, once the message has been a dead letter.
                message_attribute_names=["All"],
            )
            connection.answer_timeout_seconds = self.wait_time_seconds + ANSWER_MARGIN_SECONDS
        return connections[queue]

    def basic_qos(self, *args: Any, **kwargs: Any) -> None:
        """Change how many messages may be held."""
        super().basic_qos(*args, **kwargs)
        self._room_made()

    def _room_made(self) -> None:
        """Poll at once the queues that waited for room."""
        if self.hub:
            for queue in [queue for queue in self._waiting_for_room if self._has_room(queue)]:
                self._waiting_for_room.discard(queue)
                self.hub.call_soon(self._schedule_queue, queue)


def receive_count(message: dict[str, Any]) -> int:
    """Return how often SQS has delivered a message, this time included."""
    return int((message.get("Attributes") or {}).get("ApproximateReceiveCount", 1))


def _end_worker() -> None:
    raise WorkerShutdown(1)
