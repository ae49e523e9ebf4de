"""kombu's SQS transport with fixes for lost, duplicated and stalled messages.

polling.py receives messages; this module deletes, releases and dead-letters them, and sends.

This module overrides private methods of kombu. Therefore pyproject.toml pins a narrow range of
versions, and tests/library/test_relied_on.py of the template checks them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import boto3
from botocore.config import Config
from kombu.transport import SQS
from kombu.transport.virtual import base

from ...aws import AnswerError
from ...backoff import backoff_seconds
from ...errors import PurgeRefusedError
from ...failures import fitting
from ...headers import SCHEDULED_TIME_HEADER
from . import delays
from .batching import ENTRIES_PER_REQUEST, Batch, check_size, entry, size_bytes
from .calls import CALL_SECONDS, Answer, Failure
from .polling import REMEDIES, PollingChannel, receive_count

logger = logging.getLogger(__name__)

BaseQoS: Any = base.QoS

DELETE_WITHIN_SECONDS = 0.2
"""How long a finished message may wait to be deleted in one request with others.

If the worker is killed in this time, the task runs again.
"""

RETRY_DELETE_AFTER_SECONDS = 1

DEAD_LETTER_MAX_BACKOFF_SECONDS = 30
"""Maximum backoff between attempts to dead-letter a message; the first backoff is 1 second."""

MAX_DEAD_LETTERING = 100
"""Number of messages that may wait to be dead-lettered without counting as held."""

CLOSE_WITHIN_SECONDS = 8
"""Time for a stopping worker to delete and release its messages; less than `STOP_MARGIN_SECONDS`."""

MAX_ATTRIBUTES = 10
"""Maximum number of attributes of a message.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

DENIED = ("AccessDenied", "AccessDeniedException")

Held = Mapping[str, Any]
"""Messages by receipt handle."""


class QoS(BaseQoS):  # type: ignore[misc]
    """The messages that a channel holds, and its prefetch limit.

    kombu's class writes messages that it cannot release to files, with their bodies, and `get` still
    returns messages that were acknowledged.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: dict[str, Any] = {}
        """Messages that have been neither deleted nor released, by receipt handle."""

    def can_consume(self) -> bool:
        """Return whether another message may be held."""
        return not self.prefetch_count or len(self.held) < self.prefetch_count

    def can_consume_max_estimate(self) -> int | None:
        """Return how many more messages may be held; None if that is unlimited."""
        return max(0, self.prefetch_count - len(self.held)) if self.prefetch_count else None

    def append(self, message: Any, delivery_tag: str) -> None:
        """Add a message to those held."""
        self.held[delivery_tag] = message

    def get(self, delivery_tag: str) -> Any:
        """Return a message that is held.

        Raises:
            KeyError: no such message is held.
        """
        return self.held[delivery_tag]

    def ack(self, delivery_tag: str) -> None:
        """Remove a message from those held."""
        self.held.pop(delivery_tag, None)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Remove a message from those held; the caller releases it."""
        self.held.pop(delivery_tag, None)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Release all messages that are held, when the channel closes or the process exits."""
        self._on_collect.cancel()  # It would keep this, and the channel, until the process exits.
        self.restore_unacked()

    def restore_unacked(self) -> list[Any]:
        """Release all messages that are held; return no errors.

        A message that cannot be released becomes visible after its visibility timeout.
        """
        held, self.held = self.held, {}
        infos = {tag: message.delivery_info for tag, message in held.items()}
        try:
            self.channel.release_all({tag: (info["routing_key"], info["sqs_queue"]) for tag, info in infos.items()})
        except Exception:  # An error must not prevent that the worker stops.
            logger.exception("%d messages not released; redelivery after their visibility timeout", len(held))
        return []


class Channel(PollingChannel):
    """A channel that deletes, releases and dead-letters messages."""

    QoS = QoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: dict[str, Any] = {}
        """Messages to delete, by receipt handle."""
        self._deleting: dict[str, Any] = {}
        """Messages whose delete request has no response yet."""
        self._dead_lettering: dict[str, Any] = {}
        """Messages that wait to be dead-lettered; they do not count as held, so that the worker continues."""
        self._done_lock = threading.Lock()  # While a worker stops, timers run in another thread.
        self._timer: Any = None
        """Timer of the next delete request, unless ten messages trigger it earlier."""
        self._deletes_fail = False
        self._extended: set[str] = set()
        """Queues with a heartbeat; it also goes on for messages that are held when their consumer is cancelled."""
        self._scheduler: Any = None
        """The boto3 client of EventBridge Scheduler."""
        self._close_by: float | None = None
        """Monotonic time by which `close` must end."""

    # Requests

    def request(self, operation: str, parameters: Answer, then: Callable[[Answer | Failure], None]) -> None:
        """Make a request to SQS, on the event loop if it runs, or synchronously."""
        if self.hub and self.consuming:
            self.calls.call(operation, parameters, then)
            return
        left = CALL_SECONDS if self._close_by is None else self._close_by - time.monotonic()
        then(self.calls.call_now(operation, parameters, max(1, min(CALL_SECONDS, left))))

    # Done: deleted

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Delete a message, in one request with others that end at about the same time."""
        try:
            message = self.qos.get(delivery_tag)
        except KeyError:
            logger.debug("no message is held with receipt handle %s", delivery_tag)
            return
        self._mark_done(delivery_tag, message)

    def _mark_done(self, delivery_tag: str, message: Any) -> None:
        with self._done_lock:
            self._done[delivery_tag] = message
        self._dead_lettering.pop(delivery_tag, None)
        self.qos.ack(delivery_tag)
        # A FIFO group is blocked until this message is deleted.
        at_once = message.delivery_info["routing_key"].endswith(".fifo") or len(self._done) >= ENTRIES_PER_REQUEST
        if (at_once and not self._deletes_fail) or not self.hub:
            self.delete_done()
        elif not self._timer:
            self._timer = self.hub.call_later(DELETE_WITHIN_SECONDS, self.delete_done)
        self._resume()

    def delete_done(self) -> None:
        """Delete finished messages; retry failed deletes until the messages become visible."""
        with self._done_lock:
            done, self._done = self._done, {}
            if not self.consuming:  # Responses to earlier requests may be lost, so repeat these.
                done, self._deleting = {**self._deleting, **done}, {}
            else:
                self._deleting.update(done)
            timer, self._timer = self._timer, None
        if timer:
            timer.cancel()  # Otherwise it would trigger the next request too early.
        for queue, url, messages in _by_queue(done):
            for handles in _chunks(messages):
                entries = [{"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(handles)]
                asked = {handle: messages[handle] for handle in handles}
                then = partial(self._deleted, queue, asked)
                self.request("DeleteMessageBatch", {"QueueUrl": url, "Entries": entries}, then)

    def _deleted(self, queue: str, asked: Held, outcome: Answer | Failure) -> None:
        """Process the response to a delete request; keep the messages that were not deleted."""
        handles = list(asked)
        if isinstance(outcome, Failure):
            if outcome.code in DENIED:  # Otherwise every task would run until its message is dead-lettered.
                self.give_up(f"consume queue {queue}", str(outcome), REMEDIES[outcome.code])
            logger.warning("%d messages of queue %s not deleted, retrying: %s", len(handles), queue, outcome)
            settled = set()
        else:
            settled = {item["Id"] for item in outcome.get("Successful") or ()}
            for failed in outcome.get("Failed") or ():
                logger.warning("message of queue %s not deleted: %s", queue, failed.get("Code"))
                if failed.get("SenderFault"):  # Its receipt handle has expired, and it is redelivered.
                    settled.add(failed["Id"])
        now = time.monotonic()
        # Messages that are missing in the response may not have been deleted.
        kept = {
            handle: asked[handle]
            for index, handle in enumerate(handles)
            if str(index) not in settled and now < asked[handle].delivery_info["visible_at"]
        }
        with self._done_lock:
            for handle in handles:
                self._deleting.pop(handle, None)
            self._done.update(kept)
        self._deletes_fail = bool(kept)
        if kept and self.hub and self.consuming and not self._timer:
            self._timer = self.hub.call_later(RETRY_DELETE_AFTER_SECONDS, self.delete_done)

    # Not done: released or dead-lettered

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Release a message, or move it to the dead-letter queue.

        Its `delivery_info` has the delay of the redelivery (`release_after_seconds`), or why it is
        dead-lettered (`reason`).
        """
        try:
            message = self.qos.get(delivery_tag)
        except KeyError:
            logger.debug("no message is held with receipt handle %s", delivery_tag)
            return
        if requeue:
            self._release(delivery_tag, message)
        else:
            self._dead_letter(delivery_tag, message)
        self._resume()

    def _release(self, delivery_tag: str, message: Any) -> None:
        info = message.delivery_info
        self._dead_lettering.pop(delivery_tag, None)
        # A stopping worker, which has cancelled its consumers, releases without a backoff.
        stopping = not self.consuming
        seconds = 0 if stopping else math.ceil(info.get("release_after_seconds") or 0)
        # Later its receipt handle is no longer its own: another worker may have received the message.
        if time.monotonic() < info.get("visible_at", math.inf):
            self._change_visibility(info["routing_key"], info["sqs_queue"], delivery_tag, seconds)
        self.qos.reject(delivery_tag, requeue=False)

    def release_unread(self, queue: str, url: str, message: dict[str, Any]) -> None:
        """Release a message that cannot be decoded, with the backoff of a failed task."""
        handle = message["ReceiptHandle"]
        seconds = backoff_seconds(self.predefined_queues[queue]["queue"], receive_count(message))
        self._change_visibility(queue, url, handle, seconds)
        self.qos.reject(handle, requeue=False)

    def release_all(self, held: Mapping[str, tuple[str, str]]) -> None:
        """Release messages without a backoff, in batches, since a stopping worker has little time."""
        queues: dict[tuple[str, str], list[str]] = {}
        for handle, where in held.items():
            queues.setdefault(where, []).append(handle)
        for (queue, url), all_handles in queues.items():
            for handles in _chunks(all_handles):
                self._change_visibilities(queue, url, dict.fromkeys(handles, 0))

    def _change_visibility(self, queue: str, url: str, receipt_handle: str, seconds: int) -> None:
        """Set the visibility timeout of a message; if that fails, the old one continues."""

        def then(outcome: Answer | Failure) -> None:
            if isinstance(outcome, Failure):
                logger.warning("message of queue %s not released before its visibility timeout: %s", queue, outcome)

        parameters = {"QueueUrl": url, "ReceiptHandle": receipt_handle, "VisibilityTimeout": seconds}
        self.request("ChangeMessageVisibility", parameters, then)

    def _dead_letter(self, delivery_tag: str, message: Any, backoff: float = 1) -> None:
        """Move a message to its dead-letter queue; retry while it is invisible.

        The message is sent as it was received, with the reason as message attributes, and then deleted
        from its queue. If the worker is killed in between, the message is redelivered once more.
        """
        info = message.delivery_info
        queue = info["routing_key"]

        def then(outcome: Answer | Failure) -> None:
            if not isinstance(outcome, Failure):
                self._mark_done(delivery_tag, message)
            elif self.hub and self.consuming and time.monotonic() + backoff < info["visible_at"]:
                level = logging.ERROR if outcome.code in REMEDIES else logging.WARNING
                logger.log(
                    level, "message of queue %s not dead-lettered, retrying in %g s: %s", queue, backoff, outcome
                )
                if len(self._dead_lettering) < MAX_DEAD_LETTERING:
                    self._dead_lettering[delivery_tag] = message
                    self.qos.ack(delivery_tag)
                    self._resume()
                following = min(DEAD_LETTER_MAX_BACKOFF_SECONDS, backoff * 2)
                self.hub.call_later(backoff, self._dead_letter, delivery_tag, message, following)
            else:
                logger.warning("message of queue %s not dead-lettered, released: %s", queue, outcome)
                self._release(delivery_tag, message)
                self._resume()

        url = self.predefined_queues[queue]["dead_letter_url"]
        self.request("SendMessage", dead_letter_of(message, url, self.transport_options["max_message_bytes"]), then)

    # Held: kept invisible

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Start to consume a queue, and its heartbeat if the contract has one."""
        consuming = super().basic_consume(queue, *args, **kwargs)
        interval = self.predefined_queues[queue]["heartbeat_seconds"]
        if interval and self.hub and queue not in self._extended:
            self._extended.add(queue)
            self.hub.call_repeatedly(interval, self.extend_visibility, queue)
        return consuming

    def extend_visibility(self, queue: str) -> None:
        """Extend the visibility timeout of all held messages of a queue: running, prefetched or delayed."""
        now = time.monotonic()
        rules = self.predefined_queues[queue]
        for name, url, messages in _by_queue({**self.qos.held, **self._dead_lettering}):
            if name != queue:
                continue
            seconds = {
                tag: min(
                    rules["visibility_timeout_seconds"],
                    math.floor(message.delivery_info["received_at"] + rules["heartbeat_limit_seconds"] - now),
                )
                for tag, message in messages.items()
            }
            for tags in _chunks(tag for tag in messages if seconds[tag] > 0):
                self._change_visibilities(queue, url, {tag: seconds[tag] for tag in tags}, messages)

    def _change_visibilities(
        self, queue: str, url: str, seconds: Mapping[str, int], messages: Held | None = None
    ) -> None:
        """Set the visibility timeout of messages of one queue.

        Args:
            queue: name of the queue in Celery.
            url: URL of the queue.
            seconds: the new timeout of each message, by receipt handle.
            messages: the messages, if their `visible_at` is to be updated.
        """
        entries = [
            {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": chosen}
            for index, (handle, chosen) in enumerate(seconds.items())
        ]
        asked_at = time.monotonic()

        def then(outcome: Answer | Failure) -> None:
            if isinstance(outcome, Failure):
                logger.warning("visibility of %d messages of queue %s not changed: %s", len(seconds), queue, outcome)
                return
            failed = {item["Id"]: item.get("Code") for item in outcome.get("Failed") or ()}
            for index, (handle, chosen) in enumerate(seconds.items()):
                if str(index) in failed:
                    logger.warning("visibility of a message of queue %s not changed: %s", queue, failed[str(index)])
                elif messages:
                    messages[handle].delivery_info["visible_at"] = asked_at + chosen

        self.request("ChangeMessageVisibilityBatch", {"QueueUrl": url, "Entries": entries}, then)

    # Sending

    def create_publish_batch(self, max_size: int) -> Batch:
        """Return a batch of messages; `Producer.batch` calls this."""
        return Batch(self)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        """Send one message, or add it to a batch."""
        gathering: Batch | None = kwargs.pop("gathering", None)
        # A copy: kombu has the same properties in the next attempt, if this one fails.
        message = {**message, "properties": dict(message["properties"])}
        at = message["properties"].pop(delays.PROPERTY, None)
        if at:  # As in a message of a schedule of the contract.
            message["headers"][SCHEDULED_TIME_HEADER] = f"{at}Z"
        made = entry(queue, message)
        check_size(message, made, self.transport_options["max_message_bytes"])
        if at:
            url = self.predefined_queues[queue]["url"]
            schedule = delays.request(self.transport_options["scheduler"], message, url, made, at)
            if gathering is not None:
                gathering.delay(message, schedule)
            else:
                self.create_schedule(schedule)
        elif gathering is not None:
            gathering.add(queue, message, made)
        else:
            answer = self.sqs(queue=queue).send_message(QueueUrl=self.predefined_queues[queue]["url"], **made)
            if not answer.get("MessageId"):
                raise AnswerError("SQS did not confirm the message")

    def create_schedule(self, parameters: Mapping[str, Any]) -> None:
        """Create the one-time schedule of a delayed task."""
        options = self.transport_options
        client = self._scheduler or boto3.Session(region_name=options["region"]).client(
            "scheduler", config=Config(**options["client-config"])
        )
        self._scheduler = client
        delays.create(client, parameters)

    def queue_purge(self, queue: str, **options: Any) -> int:
        """Refuse to delete messages.

        Raises:
            PurgeRefusedError: always.
        """
        raise PurgeRefusedError(queue)

    def close(self) -> None:
        """Delete finished messages, release the others, and close."""
        if self._calls is not None:
            self._close_by = time.monotonic() + CLOSE_WITHIN_SECONDS
            self.cancel_all()
            self._calls.finish(CLOSE_WITHIN_SECONDS / 2)
            self.delete_done()
            waiting, self._dead_lettering = self._dead_lettering, {}
            infos = {tag: message.delivery_info for tag, message in waiting.items()}
            self.release_all({tag: (info["routing_key"], info["sqs_queue"]) for tag, info in infos.items()})
        super().close()


def dead_letter_of(message: Any, url: str, max_message_bytes: int) -> dict[str, Any]:
    """Return the parameters of the SendMessage request that dead-letters a message.

    Args:
        message: the message as received, with the reason in its `delivery_info`.
        url: URL of the dead-letter queue.
        max_message_bytes: maximum size of the message with the reason.
    """
    info = message.delivery_info
    received = info["sqs_message"]
    request: dict[str, Any] = {"QueueUrl": url, "MessageBody": received["Body"]}
    held = {**request, "MessageAttributes": received.get("MessageAttributes", {})}
    reason = fitting(info.get("reason") or {}, max_message_bytes - size_bytes(held))
    attributes = {name: {"DataType": "String", "StringValue": value} for name, value in reason.items()}
    for name, value in held["MessageAttributes"].items():
        if len(attributes) < MAX_ATTRIBUTES:
            attributes.setdefault(name, value)
    request["MessageAttributes"] = attributes
    if group := (received.get("Attributes") or {}).get("MessageGroupId"):
        request["MessageGroupId"] = group
    if info["routing_key"].endswith(".fifo"):
        # A redriven message has another id, so that SQS does not drop it as a duplicate.
        request["MessageDeduplicationId"] = f"{received['MessageId']}:dead"
    return request


def _by_queue(messages: Held) -> list[tuple[str, str, dict[str, Any]]]:
    """Group messages by their queue: name, URL, messages by receipt handle."""
    sorted_out: dict[tuple[str, str], dict[str, Any]] = {}
    for handle, message in messages.items():
        info = message.delivery_info
        sorted_out.setdefault((info["routing_key"], info["sqs_queue"]), {})[handle] = message
    return [(queue, url, found) for (queue, url), found in sorted_out.items()]


def _chunks(handles: Iterable[str]) -> list[list[str]]:
    items = list(handles)
    return [items[start : start + ENTRIES_PER_REQUEST] for start in range(0, len(items), ENTRIES_PER_REQUEST)]


class Transport(SQS.Transport):
    """The transport class for Celery's `broker_transport`."""

    Channel = Channel
    implements = SQS.Transport.implements.extend(batch_publish=True)
