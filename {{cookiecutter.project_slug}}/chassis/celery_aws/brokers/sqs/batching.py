"""Sending messages in batches, and checking their size.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps

from ...errors import MessageTooLargeError, NotAllSentError
from .. import SIZE_MARGIN_BYTES
from . import delays

if TYPE_CHECKING:
    from .. import Composed

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

ENTRIES_PER_REQUEST = 10
MAX_REQUEST_BYTES = 1_048_576
"""Maximum total size of the messages of one request.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""
ATTEMPTS = 4
FIRST_BACKOFF_SECONDS = 0.1


def entry(queue: str, message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as an entry of SendMessageBatch, without its `Id`."""
    properties = message["properties"]
    for_sqs = ("MessageGroupId", "MessageDeduplicationId", "DelaySeconds")
    made = {name: properties[name] for name in for_sqs if name in properties}
    if attributes := properties.pop("message_attributes", None):
        made["MessageAttributes"] = attributes
    made["MessageBody"] = dumps(message)
    return made


def check_size(message: dict[str, Any], made: dict[str, Any], max_message_bytes: int, reserved_bytes: int = 0) -> None:
    """Refuse a message that is too large for SQS.

    Raises:
        MessageTooLargeError: it is larger than `max_message_bytes`.
    """
    if (size := size_bytes(made) + reserved_bytes) > max_message_bytes:
        raise MessageTooLargeError(
            f"{message['headers'].get('task')} was not sent: its message has {size:,} bytes, but max_message_bytes in "
            f"contract.json is {max_message_bytes:,}. Store large data elsewhere, and send its location."
        )


def check_prepared_size(message: Composed, transport_options: Mapping[str, Any]) -> None:
    """Refuse a message that is to be sent later; see `Broker.check_prepared_size`."""
    properties = {**message.properties, "delivery_info": {"routing_key": message.queue}}
    sent = {"body": bytes_to_str(message.body), "headers": dict(message.headers), "properties": properties}
    at = properties.pop(delays.PROPERTY, None)
    made = entry(message.queue, sent)
    check_size(sent, made, transport_options["max_message_bytes"], SIZE_MARGIN_BYTES)
    if at:
        url = transport_options["predefined_queues"][message.queue]["url"]
        delays.request(transport_options["scheduler"], sent, url, made, at)


def size_bytes(made: dict[str, Any]) -> int:
    """Return the size of an entry as SQS counts it: body, and names, types and values of attributes."""
    size = len(made["MessageBody"].encode())
    for name, value in made.get("MessageAttributes", {}).items():
        content = value.get("StringValue", "").encode() or value.get("BinaryValue", b"")
        size += len(name) + len(value["DataType"]) + len(content)
    return size


class Batch:
    """Messages that are sent together at the end of a `with` block, or discarded if it raises.

    kombu's `Producer.batch` creates and uses it.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self._waiting: list[tuple[str, tuple[str, str], dict[str, Any]]] = []
        self._delayed: list[tuple[tuple[str, str], dict[str, Any]]] = []

    def publish(self, message: dict[str, Any], **kwargs: Any) -> None:
        """Add a message, by way of the channel."""
        self.channel.basic_publish(message, gathering=self, **kwargs)

    def add(self, queue: str, message: dict[str, Any], made: dict[str, Any]) -> None:
        """Add a message as an entry of SendMessageBatch."""
        self._waiting.append((queue, _task_of(message), made))

    def delay(self, message: dict[str, Any], schedule: dict[str, Any]) -> None:
        """Add a message that a one-time schedule sends."""
        self._delayed.append((_task_of(message), schedule))

    def discard(self) -> None:
        """Discard the messages."""
        self._waiting.clear()
        self._delayed.clear()

    close = discard

    def flush(self) -> None:
        """Send all messages.

        Raises:
            NotAllSentError: some messages could not be sent; all others were.
        """
        waiting, self._waiting = self._waiting, []
        delayed, self._delayed = self._delayed, []
        failed: list[tuple[str, str, str]] = []
        for queue in dict.fromkeys(queue for queue, _, _ in waiting):
            sender = BatchSender(self.channel, queue)
            sender.send([(task, made) for of, task, made in waiting if of == queue])
            failed += sender.failed
        for number, (task, schedule) in enumerate(delayed):
            try:
                self.channel.create_schedule(schedule)
            except ClientError as error:  # After boto3's own retries.
                failed.append((*task, str(error)))
            except (BotoCoreError, OSError) as error:
                # Give up: every further request would wait for the same timeout.
                failed += [(*each, str(error)) for each, _ in delayed[number:]]
                break
        if failed:
            raise NotAllSentError(failed)


def _task_of(message: dict[str, Any]) -> tuple[str, str]:
    """Return the id and the name of a message's task."""
    return str(message["headers"].get("id")), str(message["headers"].get("task"))


class BatchSender:
    """Sends messages to one queue."""

    def __init__(self, channel: Any, queue: str) -> None:
        self.client = channel.sqs(queue=queue)
        self.url = channel.predefined_queues[queue]["url"]
        self.ordered = queue.endswith(".fifo")
        self.failed: list[tuple[str, str, str]] = []

    def send(self, messages: Sequence[tuple[tuple[str, str], dict[str, Any]]]) -> None:
        """Send messages; add those that could not be sent to `failed`."""
        # On FIFO queues a request has one message per group, and the next message of a group is
        # sent after SQS has accepted the previous one. Otherwise it could overtake a failed one.
        lanes: dict[Any, deque[Any]] = {}
        for number, message in enumerate(messages):
            lane = message[1]["MessageGroupId"] if self.ordered else number
            lanes.setdefault(lane, deque()).append(message)
        while lanes:
            heads = list(_fitting(lanes))
            accepted: dict[Any, str] = {}
            try:
                refused = send_batch(self.client, self.url, {lane: lanes[lane][0][1] for lane in heads}, accepted)
            except (BotoCoreError, ClientError, OSError) as error:  # After boto3's own retries.
                for lane in accepted:
                    lanes[lane].popleft()
                # Give up: every further request would wait for the same timeout.
                self.failed += [(*task, str(error)) for lane in lanes.values() for task, _ in lane]
                return
            for lane in heads:
                (task_id, task), _ = lanes[lane].popleft()
                if lane in refused:
                    self.failed.append((task_id, task, refused[lane]))
                    for (later_id, later), _ in lanes.pop(lane):
                        self.failed.append((later_id, later, f"{task_id}, earlier in its group, was not sent"))
                elif not lanes[lane]:
                    del lanes[lane]


def send_batch(
    client: Any, url: str, entries: Mapping[Key, dict[str, Any]], accepted: dict[Key, str]
) -> dict[Key, str]:
    """Send one batch, and retry the entries that SQS did not accept.

    Args:
        client: a boto3 client of SQS.
        url: URL of the queue.
        entries: at most `ENTRIES_PER_REQUEST` entries, by any key.
        accepted: receives the message id of each accepted entry, also if a later request raises.

    Returns:
        The reason for each entry that was not accepted.
    """
    refused: dict[Key, str] = {}
    reasons: dict[Key, str] = {}
    left = dict(entries)
    for attempt in range(ATTEMPTS):
        if not left:
            break
        if attempt:
            logger.warning("SQS did not accept %d of %d messages, retrying", len(left), len(entries))
            time.sleep(FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1))  # noqa: S311
        keys = list(left)
        answer = client.send_message_batch(
            QueueUrl=url, Entries=[{"Id": str(index), **left[key]} for index, key in enumerate(keys)]
        )
        accepted.update({keys[int(item["Id"])]: item.get("MessageId", "") for item in answer.get("Successful", [])})
        for item in answer.get("Failed", []):
            key = keys[int(item["Id"])]
            reasons[key] = f"{item.get('Code')}: {item.get('Message')}"
            if item.get("SenderFault"):
                refused[key] = reasons[key]
        # An entry that is missing in the response may have been accepted or not; it is sent again.
        left = {key: left[key] for key in keys if key not in accepted and key not in refused}
    refused.update({key: reasons.get(key, "no reason given by SQS") for key in left})
    return refused


def _fitting(lanes: dict[Any, deque[Any]]) -> Iterator[Any]:
    """Yield the lanes whose first messages fit into one request."""
    size = 0
    for count, lane in enumerate(lanes):
        size += size_bytes(lanes[lane][0][1])
        if count == ENTRIES_PER_REQUEST or (count and size > MAX_REQUEST_BYTES):
            return
        yield lane
