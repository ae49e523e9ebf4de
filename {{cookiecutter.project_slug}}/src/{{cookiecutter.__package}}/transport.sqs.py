"""kombu's SQS transport, mended where it ends, stalls, waits or forgets.

What stock kombu 5.7 does on SQS, and this does not: one HTTP 503 or refused connection ends the worker, one poll that
is never answered stops all polling for good, one message that cannot be read ends the worker again and again, a task
that failed waits for its whole visibility timeout, and a FIFO queue's messages of one group run side by side.

It replaces methods that kombu does not promise to keep. Hence the narrow range of versions in pyproject.toml.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pycurl
from botocore.exceptions import BotoCoreError, ClientError
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


class Channel(BaseChannel):  # type: ignore[misc]
    """A channel that keeps polling, and decides when a message that was not done comes back."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._polling: set[str] = set()
        self._waiting_for_a_slot: set[str] = set()
        self._failures: dict[str, int] = {}
        self._ever_answered: set[str] = set()

    # Polling

    def _schedule_queue(self, queue: str) -> None:
        """Poll a queue if there is room for a message; kombu calls this to begin with."""
        if queue not in self._active_queues or queue in self._polling:
            return
        if not self.qos.can_consume():
            # No timer: whatever frees a slot starts the next poll at once.
            self._waiting_for_a_slot.add(queue)
            return
        self._polling.add(queue)
        try:
            self._get_async(queue, self._room(queue), callback=promise(self._polled, (queue,)))
        except (BotoCoreError, OSError) as error:  # The credentials could not be had just now.
            self._polled(queue, Failure(type(error).__name__, str(error)))

    def _room(self, queue: str) -> int:
        # One receive may bring several messages of one group, which would run side by side. SQS
        # brings no other of a group that is being worked on, so one at a time keeps the order, and
        # groups still run in parallel.
        return 1 if queue.endswith(".fifo") else int(self._get_message_estimate())

    def _polled(self, queue: str, outcome: Any) -> None:
        self._polling.discard(queue)
        if isinstance(outcome, Failure):
            self._poll_failed(queue, outcome)
        else:
            if self._failures.pop(queue, 0):
                logger.info("Polls of %s are answered again", queue)
            self._ever_answered.add(queue)
            if outcome:
                self.hub.call_soon(self._schedule_queue, queue)
            else:
                self.hub.call_later(self.connection.polling_interval, self._schedule_queue, queue)

    def _poll_failed(self, queue: str, failure: Failure) -> None:
        if failure.code in WHAT_TO_DO and queue not in self._ever_answered:
            logger.critical("Cannot receive from %s: %s. To mend it, %s", queue, failure, WHAT_TO_DO[failure.code])
            self.hub.call_soon(_end_worker)
            return
        count = self._failures[queue] = self._failures.get(queue, 0) + 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(count - 1, 10)) * random.uniform(0.5, 1)  # noqa: S311
        logger.warning("Poll %d of %s failed, next in %.1f s: %s", count, queue, pause, failure)
        self.hub.call_later(pause, self._schedule_queue, queue)

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
                callback(self._message_to_python(message, qname, queue))
            except Exception:
                # It must not take the worker down: left alone, it is delivered again, and goes to
                # the dead-letter queue in the end.
                logger.exception("A message of %s cannot be read: %s", qname, message.get("MessageId"))
                handle = message["ReceiptHandle"]
                self._hide(qname, queue, handle, self._backoff_seconds(qname, message))
                self.qos.reject(handle, requeue=False)
        return len(received)

    def asynsqs(self, queue: str) -> PollingConnection:
        """Return the connection that polls a queue."""
        connections: dict[str, PollingConnection] = self._predefined_queue_async_clients
        if queue not in connections:
            connection = connections[queue] = PollingConnection(
                sqs_connection=self.sqs(queue=queue), region=self.region
            )
            connection.answer_timeout_seconds = self.wait_time_seconds + ANSWER_MARGIN_SECONDS
        return connections[queue]

    # Freed slots

    def basic_qos(self, *args: Any, **kwargs: Any) -> None:
        """Change how many messages may be taken."""
        super().basic_qos(*args, **kwargs)
        self._slot_freed()

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Delete a message that is done."""
        super().basic_ack(delivery_tag, multiple)
        self._slot_freed()

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Leave a message that is not done in its queue, hidden for a while that grows with its deliveries.

        Whether it is to be requeued makes no difference: on SQS it never left.
        """
        try:
            delivered = self.qos.get(delivery_tag).delivery_info
            queue, url, message = delivered["routing_key"], delivered["sqs_queue"], delivered["sqs_message"]
        except KeyError:
            logger.debug("Nothing is held under %s", delivery_tag)
        else:
            # A worker that is stopping has cancelled its consumers; what it gives back, it gives at once.
            stopping = not self._active_queues
            self._hide(queue, url, delivery_tag, 0 if stopping else self._backoff_seconds(queue, message))
        self.qos.reject(delivery_tag, requeue=False)
        self._slot_freed()

    def _restore(self, message: Any, *args: Any) -> None:
        """Give back at once what the worker still holds when it ends; kombu hides it for a long poll's time."""
        delivered = message.delivery_info
        self._hide(delivered["routing_key"], delivered["sqs_queue"], message.delivery_tag, 0)

    def _slot_freed(self) -> None:
        if self.hub and self._waiting_for_a_slot and self.qos.can_consume():
            for queue in self._waiting_for_a_slot:
                self.hub.call_soon(self._schedule_queue, queue)
            self._waiting_for_a_slot.clear()

    # Visibility

    def _backoff_seconds(self, queue: str, message: Mapping[str, Any]) -> int:
        """Return how long a message stays hidden after a failure: doubling with each delivery, with jitter."""
        rules = self.predefined_queues[queue]
        received = int((message.get("Attributes") or {}).get("ApproximateReceiveCount", 1))
        if received >= rules["max_receive_count"]:
            return 0  # SQS moves it to the dead-letter queue when it would deliver it once more.
        longest: float = min(
            rules["visibility_timeout_seconds"], rules["retry_backoff_seconds"] * 2 ** min(received - 1, 30)
        )
        return math.ceil(longest * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret

    def _hide(self, queue: str, url: str, receipt_handle: str, seconds: int) -> None:
        """Hide a message for some seconds more, or show it with 0; failing that, its visibility timeout goes on."""
        try:
            self.sqs(queue=queue).change_message_visibility(
                QueueUrl=url, ReceiptHandle=receipt_handle, VisibilityTimeout=seconds
            )
        except (BotoCoreError, ClientError, OSError) as error:
            logger.warning("A message of %s comes back only after its visibility timeout: %s", queue, error)


def _end_worker() -> None:
    raise WorkerShutdown(1)


class Transport(SQS.Transport):
    """The transport to name in `broker_transport`."""

    Channel = Channel
