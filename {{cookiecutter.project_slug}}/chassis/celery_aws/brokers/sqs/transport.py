"""kombu's SQS transport with fixes for lost, duplicated and stalled messages: what is received is deleted, or not.

It replaces methods that kombu does not promise to keep. Hence the narrow range of versions in pyproject.toml, and
tests/library/test_relied_on.py of the template.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from kombu.transport import SQS
from kombu.transport.virtual import base

from ...aws import AnswerError
from ...backoff import backoff_seconds
from ...failures import fitting
from .batching import ENTRIES_PER_REQUEST, Batch, check_size, entry, size_bytes
from .calls import CALL_SECONDS, Answer, Failure
from .polling import WHAT_TO_DO, PollingChannel, receive_count

logger = logging.getLogger(__name__)

BaseQoS: Any = base.QoS

DELETE_WITHIN_SECONDS = 0.2
"""How long a message that is done may wait for others, to be deleted in one request with them.

Were the worker killed meanwhile, its task would run again, as it would if it were killed just before it ended.
"""

DELETE_AGAIN_AFTER_SECONDS = 1

DEAD_LETTER_MAX_BACKOFF_SECONDS = 30
"""The longest backoff between two requests that dead-letter a message; the first is a second."""

MAX_DEAD_LETTERING = 100
"""So many messages may wait for their dead-letter queue without taking the place of others."""

CLOSE_WITHIN_SECONDS = 8
"""What a worker that stops may take to delete and release what it still holds: less than its margin for stopping."""

MOST_ATTRIBUTES = 10
"""Of a message.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

DENIED = ("AccessDenied", "AccessDeniedException")

Held = Mapping[str, Any]
"""Messages by receipt handle."""


class QoS(BaseQoS):  # type: ignore[misc]
    """What a channel holds, and whether it may hold more.

    kombu's own writes what it cannot release into files, whole bodies included, and goes on returning what was acked.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: dict[str, Any] = {}
        """Messages that were neither deleted nor released yet, by receipt handle."""

    def can_consume(self) -> bool:
        """Return whether another message may be held."""
        return not self.prefetch_count or len(self.held) < self.prefetch_count

    def can_consume_max_estimate(self) -> int | None:
        """Return how many more messages may be held; nothing if that is not limited."""
        return max(0, self.prefetch_count - len(self.held)) if self.prefetch_count else None

    def append(self, message: Any, delivery_tag: str) -> None:
        """Hold a message."""
        self.held[delivery_tag] = message

    def get(self, delivery_tag: str) -> Any:
        """Return a message that is held.

        Raises:
            KeyError: it is not.
        """
        return self.held[delivery_tag]

    def ack(self, delivery_tag: str) -> None:
        """Hold a message no longer."""
        self.held.pop(delivery_tag, None)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Hold a message no longer; whoever calls this has released it."""
        self.held.pop(delivery_tag, None)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Release everything that is held; what cannot be released becomes visible by itself."""
        held, self.held = self.held, {}
        infos = {tag: message.delivery_info for tag, message in held.items()}
        try:
            self.channel.release_all({tag: (info["routing_key"], info["sqs_queue"]) for tag, info in infos.items()})
        except Exception:  # A worker that stops must stop.
            logger.exception("%d messages become visible only after their visibility timeout", len(held))


class Channel(PollingChannel):
    """A channel that deletes what is done, and decides when the rest is delivered again."""

    QoS = QoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: dict[str, Any] = {}
        """Messages to delete, by receipt handle."""
        self._deleting: dict[str, Any] = {}
        """Those that SQS has been asked to delete, and has not answered."""
        self._dead_lettering: dict[str, Any] = {}
        """Those that could not be dead-lettered yet; they are not counted as held, so that the worker works on."""
        self._done_lock = threading.Lock()  # While a worker stops, timers run in a thread of their own.
        self._timer: Any = None
        """What will delete them, if not ten of them do earlier."""
        self._deletes_fail = False
        self._close_by: float | None = None
        """When it is to be closed at the latest, once that has begun."""

    # Requests

    def request(self, operation: str, parameters: Answer, then: Callable[[Answer | Failure], None]) -> None:
        """Make a request to SQS: on the event loop while it runs, else now."""
        if self.hub and self.consuming:
            self.calls.call(operation, parameters, then)
            return
        left = CALL_SECONDS if self._close_by is None else self._close_by - time.monotonic()
        then(self.calls.call_now(operation, parameters, max(1, min(CALL_SECONDS, left))))

    # Done: deleted

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Delete a message that is done, together with others that are done at about the same time."""
        try:
            message = self.qos.get(delivery_tag)
        except KeyError:
            logger.debug("Nothing is held under %s", delivery_tag)
            return
        self._is_done(delivery_tag, message)

    def _is_done(self, delivery_tag: str, message: Any) -> None:
        with self._done_lock:
            self._done[delivery_tag] = message
        self._dead_lettering.pop(delivery_tag, None)
        self.qos.ack(delivery_tag)
        # The rest of a FIFO group waits for this one.
        at_once = message.delivery_info["routing_key"].endswith(".fifo") or len(self._done) >= ENTRIES_PER_REQUEST
        if (at_once and not self._deletes_fail) or not self.hub:
            self.delete_done()
        elif not self._timer:
            self._timer = self.hub.call_later(DELETE_WITHIN_SECONDS, self.delete_done)
        self._room_made()

    def delete_done(self) -> None:
        """Delete what is done; what cannot be deleted now is tried again until it would be delivered anyway."""
        with self._done_lock:
            done, self._done = self._done, {}
            if not self.consuming:  # Whether the last requests will be answered, nobody will see.
                done, self._deleting = {**self._deleting, **done}, {}
            else:
                self._deleting.update(done)
            timer, self._timer = self._timer, None
        if timer:
            timer.cancel()  # Else it would cut the next ten short.
        for queue, url, messages in _by_queue(done):
            for handles in _chunks(messages):
                entries = [{"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(handles)]
                asked = {handle: messages[handle] for handle in handles}
                then = partial(self._deleted, queue, asked)
                self.request("DeleteMessageBatch", {"QueueUrl": url, "Entries": entries}, then)

    def _deleted(self, queue: str, asked: Held, outcome: Answer | Failure) -> None:
        """See to those messages of a request that SQS has not deleted."""
        handles = list(asked)
        if isinstance(outcome, Failure):
            if outcome.code in DENIED:  # Or every task would run until it is dead-lettered.
                self.give_up(queue, outcome.code, str(outcome))
            logger.warning("%d done messages of %s could not be deleted: %s", len(handles), queue, outcome)
            settled = set()
        else:
            settled = {item["Id"] for item in outcome.get("Successful") or ()}
            for failed in outcome.get("Failed") or ():
                logger.warning("a done message of %s could not be deleted: %s", queue, failed.get("Code"))
                if failed.get("SenderFault"):  # Its receipt handle has expired, and it is delivered again.
                    settled.add(failed["Id"])
        now = time.monotonic()
        # Of what the answer does not tell, if it was half an answer, nothing is known.
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
            self._timer = self.hub.call_later(DELETE_AGAIN_AFTER_SECONDS, self.delete_done)

    # Not done: released, or dead-lettered

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Release a message, or move it to the dead-letter queue.

        Its `delivery_info` may say after how many seconds it is to be delivered again (`release_after_seconds`), and
        why it is dead-lettered (`reason`).
        """
        try:
            message = self.qos.get(delivery_tag)
        except KeyError:
            logger.debug("Nothing is held under %s", delivery_tag)
            return
        if requeue:
            self._release(delivery_tag, message)
        else:
            self._dead_letter(delivery_tag, message)
        self._room_made()

    def _release(self, delivery_tag: str, message: Any) -> None:
        info = message.delivery_info
        self._dead_lettering.pop(delivery_tag, None)
        # A worker that is stopping has cancelled its consumers; what it releases, it releases at once.
        stopping = not self.consuming
        seconds = 0 if stopping else math.ceil(info.get("release_after_seconds") or 0)
        self._change_visibility(info["routing_key"], info["sqs_queue"], delivery_tag, seconds)
        self.qos.reject(delivery_tag, requeue=False)

    def release_unread(self, queue: str, url: str, message: dict[str, Any]) -> None:
        """Release a message that cannot be read, like one whose task failed."""
        handle = message["ReceiptHandle"]
        seconds = backoff_seconds(self.predefined_queues[queue]["queue"], receive_count(message))
        self._change_visibility(queue, url, handle, seconds)
        self.qos.reject(handle, requeue=False)

    def release_all(self, held: Mapping[str, tuple[str, str]]) -> None:
        """Release messages at once, in few requests: a worker that stops has little time."""
        queues: dict[tuple[str, str], list[str]] = {}
        for handle, where in held.items():
            queues.setdefault(where, []).append(handle)
        for (queue, url), all_handles in queues.items():
            for handles in _chunks(all_handles):
                self._change_visibilities(queue, url, dict.fromkeys(handles, 0))

    def _change_visibility(self, queue: str, url: str, receipt_handle: str, seconds: int) -> None:
        """Keep a message invisible for some seconds more; failing that, its visibility timeout goes on."""

        def then(outcome: Answer | Failure) -> None:
            if isinstance(outcome, Failure):
                logger.warning("a message of %s is redelivered only after its visibility timeout: %s", queue, outcome)

        parameters = {"QueueUrl": url, "ReceiptHandle": receipt_handle, "VisibilityTimeout": seconds}
        self.request("ChangeMessageVisibility", parameters, then)

    def _dead_letter(self, delivery_tag: str, message: Any, backoff: float = 1) -> None:
        """Move a message to its dead-letter queue; what fails is tried again for as long as it is invisible.

        It is sent there as it was received, with the reason as further message attributes, and then deleted from its
        queue; were the worker killed in between, it would be delivered once more. Released, it would run again.
        """
        info = message.delivery_info
        queue = info["routing_key"]

        def then(outcome: Answer | Failure) -> None:
            if not isinstance(outcome, Failure):
                self._is_done(delivery_tag, message)
            elif self.hub and self.consuming and time.monotonic() + backoff < info["visible_at"]:
                level = logging.ERROR if outcome.code in WHAT_TO_DO else logging.WARNING
                logger.log(level, "message of %s not dead-lettered, retrying in %g s: %s", queue, backoff, outcome)
                if len(self._dead_lettering) < MAX_DEAD_LETTERING:
                    self._dead_lettering[delivery_tag] = message
                    self.qos.ack(delivery_tag)
                    self._room_made()
                following = min(DEAD_LETTER_MAX_BACKOFF_SECONDS, backoff * 2)
                self.hub.call_later(backoff, self._dead_letter, delivery_tag, message, following)
            else:
                logger.warning("message of %s not dead-lettered, and released: %s", queue, outcome)
                self._release(delivery_tag, message)
                self._room_made()

        url = self.predefined_queues[queue]["dead_letter_url"]
        self.request("SendMessage", dead_letter_of(message, url, self.transport_options["max_message_bytes"]), then)

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
        held = {**self.qos.held, **self._dead_lettering}
        for queue, url, messages in _by_queue(held):
            rules = self.predefined_queues[queue]
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
        """Keep messages of one queue invisible for so many seconds, by receipt handle."""
        entries = [
            {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": chosen}
            for index, (handle, chosen) in enumerate(seconds.items())
        ]
        asked_at = time.monotonic()

        def then(outcome: Answer | Failure) -> None:
            if isinstance(outcome, Failure):
                logger.warning("visibility of %d messages of %s was not changed: %s", len(seconds), queue, outcome)
                return
            failed = {item["Id"]: item.get("Code") for item in outcome.get("Failed") or ()}
            for index, (handle, chosen) in enumerate(seconds.items()):
                if str(index) in failed:
                    logger.warning("visibility of a message of %s was not changed: %s", queue, failed[str(index)])
                elif messages:
                    messages[handle].delivery_info["visible_at"] = asked_at + chosen

        self.request("ChangeMessageVisibilityBatch", {"QueueUrl": url, "Entries": entries}, then)

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
            answer = self.sqs(queue=queue).send_message(QueueUrl=self.predefined_queues[queue]["url"], **made)
            if not answer.get("MessageId"):
                raise AnswerError("SQS did not confirm that it has the message")

    def close(self) -> None:
        """Delete what is done, release the rest, and close."""
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
    """Return the request that sends a message, as it was received, to its dead-letter queue.

    Args:
        message: which was received.
        url: of its dead-letter queue.
        max_message_bytes: the most that queue takes, with the reason.
    """
    info = message.delivery_info
    received = info["sqs_message"]
    request: dict[str, Any] = {"QueueUrl": url, "MessageBody": received["Body"]}
    held = {**request, "MessageAttributes": received.get("MessageAttributes", {})}
    reason = fitting(info.get("reason") or {}, max_message_bytes - size_bytes(held))
    attributes = {name: {"DataType": "String", "StringValue": value} for name, value in reason.items()}
    for name, value in held["MessageAttributes"].items():
        if len(attributes) < MOST_ATTRIBUTES:
            attributes.setdefault(name, value)
    request["MessageAttributes"] = attributes
    if group := (received.get("Attributes") or {}).get("MessageGroupId"):
        request["MessageGroupId"] = group
    if info["routing_key"].endswith(".fifo"):
        # A message that was redriven has another id, so SQS does not take it for a repetition.
        request["MessageDeduplicationId"] = f"{received['MessageId']}:dead"
    return request


def _by_queue(messages: Held) -> list[tuple[str, str, dict[str, Any]]]:
    """Sort messages by the queue they came from: name, URL, messages by receipt handle."""
    sorted_out: dict[tuple[str, str], dict[str, Any]] = {}
    for handle, message in messages.items():
        info = message.delivery_info
        sorted_out.setdefault((info["routing_key"], info["sqs_queue"]), {})[handle] = message
    return [(queue, url, found) for (queue, url), found in sorted_out.items()]


def _chunks(handles: Iterable[str]) -> list[list[str]]:
    items = list(handles)
    return [items[start : start + ENTRIES_PER_REQUEST] for start in range(0, len(items), ENTRIES_PER_REQUEST)]


class Transport(SQS.Transport):
    """The transport to name in `broker_transport`."""

    Channel = Channel
    implements = SQS.Transport.implements.extend(batch_publish=True)
