"""kombu's SQS transport, mended where it loses, repeats or waits: what becomes of messages once received, and sending.

It replaces methods that kombu does not promise to keep. Hence the narrow range of versions in pyproject.toml, and
tests/test_relied_on.py.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from kombu.transport import SQS

from .batching import ENTRIES_PER_REQUEST, Batch, check_size, entry
from .polling import PollingChannel, receive_count

logger = logging.getLogger(__name__)

DELETE_WITHIN_SECONDS = 0.2
"""How long a message that is done may wait for others, to be deleted in one request with them.

Were the worker killed meanwhile, its task would run again, as it would if it were killed just before it ended.
"""

DELETE_AGAIN_AFTER_SECONDS = 1

MOST_ATTRIBUTES = 10
"""Of a message.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

TROUBLE = (BotoCoreError, ClientError, OSError)
"""What a request to AWS can end with, other than an answer."""


class Channel(PollingChannel):
    """A channel that deletes what is done, and decides when the rest comes back."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: dict[str, Any] = {}
        """Messages to delete, by receipt handle."""
        self._done_lock = threading.Lock()  # While a worker stops, timers run in a thread of their own.
        self._timer: Any = None
        """What will delete them, if not ten of them do earlier."""
        self._deletes_fail = False

    # Done: deleted

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Delete a message that is done, together with others that are done at about the same time."""
        try:
            message = self.qos.get(delivery_tag)
        except KeyError:
            logger.debug("Nothing is held under %s", delivery_tag)
            return
        with self._done_lock:
            self._done[delivery_tag] = message
        self.qos.ack(delivery_tag)
        # The rest of a FIFO group waits for this one.
        at_once = message.delivery_info["routing_key"].endswith(".fifo") or len(self._done) >= ENTRIES_PER_REQUEST
        if (at_once and not self._deletes_fail) or not self.hub:
            self.delete_done()
        elif not self._timer:
            self._timer = self.hub.call_later(DELETE_WITHIN_SECONDS, self.delete_done)
        self._room_made()

    def delete_done(self) -> None:
        """Delete what is done; what cannot be deleted now is tried again until it would come back anyway."""
        with self._done_lock:
            done, self._done = self._done, {}
            timer, self._timer = self._timer, None
        if timer:
            timer.cancel()  # Else it would cut the next ten short.
        kept = {}
        for queue, url, messages in _by_queue(done):
            for handles in _chunks(list(messages)):
                kept.update({handle: messages[handle] for handle in self._delete(queue, url, handles)})
        now = time.monotonic()
        kept = {handle: message for handle, message in kept.items() if now < message.delivery_info["comes_back_at"]}
        self._deletes_fail = bool(kept)
        if kept:
            with self._done_lock:
                self._done.update(kept)
            if self.hub and self._active_queues:
                self._timer = self.hub.call_later(DELETE_AGAIN_AFTER_SECONDS, self.delete_done)

    def _delete(self, queue: str, url: str, handles: list[str]) -> list[str]:
        """Delete messages of one queue; return the handles of those that should be tried again."""
        entries = [{"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(handles)]
        try:
            answer = self.sqs(queue=queue).delete_message_batch(QueueUrl=url, Entries=entries)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("AccessDenied", "AccessDeniedException"):
                self.give_up(queue, code, str(error))  # Or every task would run until it is dead-lettered.
            logger.warning("%d done messages of %s could not be deleted: %s", len(handles), queue, error)
            return handles
        except TROUBLE as error:
            logger.warning("%d done messages of %s could not be deleted: %s", len(handles), queue, error)
            return handles
        settled = {item["Id"] for item in answer.get("Successful", [])}
        for failed in answer.get("Failed", []):
            logger.warning("A done message of %s could not be deleted: %s", queue, failed.get("Code"))
            if failed.get("SenderFault"):  # Its receipt handle has expired, and it comes back.
                settled.add(failed["Id"])
        # Of what the answer does not tell, if it was half an answer, nothing is known.
        return [item["ReceiptHandle"] for item in entries if item["Id"] not in settled]

    # Not done: comes back, or is dead-lettered

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Leave a message that is not done in its queue, hidden for a while that grows with its deliveries.

        Whether it is to be requeued makes no difference: on SQS it never left.
        """
        try:
            info = self.qos.get(delivery_tag).delivery_info
        except KeyError:
            logger.debug("Nothing is held under %s", delivery_tag)
        else:
            # A worker that is stopping has cancelled its consumers; what it gives back, it gives at once.
            stopping = not self._active_queues
            rules = self.predefined_queues[info["routing_key"]]
            pause = 0 if stopping else backoff_seconds(rules, info["receive_count"], info.get("retry_backoff_seconds"))
            self._hide(info["routing_key"], info["sqs_queue"], delivery_tag, pause)
        self.qos.reject(delivery_tag, requeue=False)
        self._room_made()

    def leave_unread(self, queue: str, url: str, message: dict[str, Any]) -> None:
        """Leave a message that cannot be read in its queue, hidden like one whose task failed."""
        handle = message["ReceiptHandle"]
        self._hide(queue, url, handle, backoff_seconds(self.predefined_queues[queue], receive_count(message)))
        self.qos.reject(handle, requeue=False)

    def _restore(self, message: Any, *args: Any) -> None:
        """Give back at once what the worker still holds when it ends; kombu hides it for a long poll's time."""
        info = message.delivery_info
        self._hide(info["routing_key"], info["sqs_queue"], message.delivery_tag, 0)

    def dead_letter(self, message: Any, reason: Mapping[str, str]) -> bool:
        """Move a message to its dead-letter queue now; return whether that succeeded.

        It is sent there as it was received, with the reason as further message attributes. The caller has it deleted
        from its queue afterwards; were the worker killed in between, it would be delivered once more.
        """
        info = message.delivery_info
        received = info["sqs_message"]
        queue = info["routing_key"]
        attributes = {name: {"DataType": "String", "StringValue": value} for name, value in reason.items()}
        for name, value in (received.get("MessageAttributes") or {}).items():
            if len(attributes) < MOST_ATTRIBUTES:
                attributes.setdefault(name, value)
        request: dict[str, Any] = {
            "QueueUrl": self.predefined_queues[queue]["dead_letter_url"],
            "MessageBody": received["Body"],
            "MessageAttributes": attributes,
        }
        if group := (received.get("Attributes") or {}).get("MessageGroupId"):
            request["MessageGroupId"] = group
        if queue.endswith(".fifo"):
            # A message that was redriven has another id, so SQS does not take it for a repetition.
            request["MessageDeduplicationId"] = f"{received['MessageId']}:dead"
        try:
            self.sqs(queue=queue).send_message(**request)
        except TROUBLE as error:
            logger.warning("A message of %s cannot be dead-lettered at once, and comes back: %s", queue, error)
            return False
        return True

    def _hide(self, queue: str, url: str, receipt_handle: str, seconds: int) -> None:
        """Hide a message for some seconds more, or show it with 0; failing that, its visibility timeout goes on."""
        try:
            self.sqs(queue=queue).change_message_visibility(
                QueueUrl=url, ReceiptHandle=receipt_handle, VisibilityTimeout=seconds
            )
        except TROUBLE as error:
            logger.warning("A message of %s comes back only after its visibility timeout: %s", queue, error)

    # Held: kept invisible

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Begin to receive from a queue, and where the contract says so, to keep what is received invisible."""
        consuming = super().basic_consume(queue, *args, **kwargs)
        interval = self.predefined_queues[queue]["heartbeat_seconds"]
        if interval and self.hub:
            self.hub.call_repeatedly(interval, self.extend_visibility)
        return consuming

    def extend_visibility(self) -> None:
        """Start the visibility timeout anew of all that is held: running, waiting for a slot, or for its time."""
        now = time.monotonic()
        held = {tag: message for tag, message in list(self.qos._delivered.items()) if tag not in self.qos._dirty}
        for queue, url, messages in _by_queue(held):
            rules = self.predefined_queues[queue]
            seconds = {
                tag: min(
                    rules["visibility_timeout_seconds"],
                    math.floor(message.delivery_info["received_at"] + rules["heartbeat_limit_seconds"] - now),
                )
                for tag, message in messages.items()
            }
            for tags in _chunks([tag for tag in messages if seconds[tag] > 0]):
                if self._extend(queue, url, tags, seconds):
                    for tag in tags:
                        messages[tag].delivery_info["comes_back_at"] = now + seconds[tag]

    def _extend(self, queue: str, url: str, tags: list[str], seconds: Mapping[str, int]) -> bool:
        """Hide messages of one queue for these seconds; return whether SQS has heard it."""
        entries = [
            {"Id": str(index), "ReceiptHandle": tag, "VisibilityTimeout": seconds[tag]}
            for index, tag in enumerate(tags)
        ]
        try:
            answer = self.sqs(queue=queue).change_message_visibility_batch(QueueUrl=url, Entries=entries)
        except TROUBLE as error:
            logger.warning("%d messages of %s could not be kept invisible just now: %s", len(tags), queue, error)
            return False
        for failed in answer.get("Failed", []):
            logger.warning("A message of %s could not be kept invisible: %s", queue, failed.get("Code"))
        return True

    # Sending

    def create_publish_batch(self, max_size: int) -> Batch:
        """Return what gathers messages that are to be sent together; `Producer.batch` calls this."""
        return Batch(self)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        """Send one message, or put it to the others of a batch."""
        gathering: Batch | None = kwargs.pop("gathering", None)
        made = entry(queue, message)
        check_size(message, made, self.transport_options["max_message_bytes"])
        if gathering is not None:
            gathering.add(queue, message, made)
        else:
            self.sqs(queue=queue).send_message(QueueUrl=self._new_queue(queue), **made)

    def close(self) -> None:
        """Delete what is done, give back the rest, and close."""
        self.delete_done()
        super().close()


def backoff_seconds(rules: Mapping[str, Any], received: int, first_pause_seconds: float | None = None) -> int:
    """Return how long a message stays hidden after a failure: doubling with each delivery, with jitter.

    Args:
        rules: the queue's entry of `predefined_queues`.
        received: how often it has been delivered.
        first_pause_seconds: instead of the queue's.
    """
    if received >= rules["max_receive_count"]:
        return 0  # SQS moves it to the dead-letter queue when it would deliver it once more.
    first: float = rules["retry_backoff_seconds"] if first_pause_seconds is None else first_pause_seconds
    longest: float = min(rules["visibility_timeout_seconds"], first * 2 ** min(received - 1, 30))
    return math.ceil(longest * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret


def _by_queue(messages: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Sort messages by the queue they came from: name, URL, messages by receipt handle."""
    sorted_out: dict[tuple[str, str], dict[str, Any]] = {}
    for handle, message in messages.items():
        info = message.delivery_info
        sorted_out.setdefault((info["routing_key"], info["sqs_queue"]), {})[handle] = message
    return [(queue, url, found) for (queue, url), found in sorted_out.items()]


def _chunks(items: list[str]) -> list[list[str]]:
    return [items[start : start + ENTRIES_PER_REQUEST] for start in range(0, len(items), ENTRIES_PER_REQUEST)]


class Transport(SQS.Transport):
    """The transport to name in `broker_transport`."""

    Channel = Channel
    implements = SQS.Transport.implements.extend(batch_publish=True)
