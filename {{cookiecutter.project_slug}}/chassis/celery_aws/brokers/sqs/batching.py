"""Sending many messages in few requests, and none that SQS would refuse.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from kombu.utils.json import dumps

from ...errors import MessageTooLargeError, NotAllSentError

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

ENTRIES_PER_REQUEST = 10
MAX_REQUEST_BYTES = 1_048_576
"""The most that all messages of one request may have together.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""
ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.1


def entry(queue: str, message: dict[str, Any]) -> dict[str, Any]:
    """Return what SQS is to get of a message: its body, and the properties that are SQS's own."""
    properties = message["properties"]
    for_sqs = ("MessageGroupId", "MessageDeduplicationId", "DelaySeconds")
    made = {name: properties[name] for name in for_sqs if name in properties}
    if attributes := properties.pop("message_attributes", None):
        made["MessageAttributes"] = attributes
    made["MessageBody"] = dumps(message)
    return made


def check_size(message: dict[str, Any], made: dict[str, Any], max_message_bytes: int) -> None:
    """Refuse a message that SQS would refuse.

    Raises:
        MessageTooLargeError: it has more than `max_message_bytes`.
    """
    if (size := size_bytes(made)) > max_message_bytes:
        raise MessageTooLargeError(
            f"{message['headers'].get('task')} was not sent: its message has {size:,} bytes, and max_message_bytes in "
            f"contract.json is {max_message_bytes:,}. Keep what is large elsewhere, and send where it is."
        )


def size_bytes(made: dict[str, Any]) -> int:
    """Return what SQS counts of an entry: its body, and the names, types and values of its attributes."""
    size = len(made["MessageBody"].encode())
    for name, value in made.get("MessageAttributes", {}).items():
        content = value.get("StringValue", "").encode() or value.get("BinaryValue", b"")
        size += len(name) + len(value["DataType"]) + len(content)
    return size


class Batch:
    """Messages that are sent together when the `with` block around them ends, or not at all if it raises.

    kombu's `Producer.batch` makes and drives it.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self._waiting: list[tuple[str, tuple[str, str], dict[str, Any]]] = []

    def publish(self, message: dict[str, Any], **kwargs: Any) -> None:
        """Take a message up."""
        self.channel.basic_publish(message, gathering=self, **kwargs)

    def add(self, queue: str, message: dict[str, Any], made: dict[str, Any]) -> None:
        """Take up what SQS is to get of a message."""
        headers = message["headers"]
        self._waiting.append((queue, (str(headers.get("id")), str(headers.get("task"))), made))

    def discard(self) -> None:
        """Forget what has not been sent."""
        self._waiting.clear()

    close = discard

    def flush(self) -> None:
        """Send everything.

        Raises:
            NotAllSentError: some could not be sent; all others were.
        """
        waiting, self._waiting = self._waiting, []
        failed: list[tuple[str, str, str]] = []
        for queue in dict.fromkeys(queue for queue, _, _ in waiting):
            sending = Sending(self.channel, queue)
            sending.send([(task, made) for of, task, made in waiting if of == queue])
            failed += sending.failed
        if failed:
            raise NotAllSentError(failed)


class Sending:
    """Sends many messages to one queue."""

    def __init__(self, channel: Any, queue: str) -> None:
        self.client = channel.sqs(queue=queue)
        self.url = channel.predefined_queues[queue]["url"]
        self.ordered = queue.endswith(".fifo")
        self.failed: list[tuple[str, str, str]] = []

    def send(self, messages: Sequence[tuple[tuple[str, str], dict[str, Any]]]) -> None:
        """Send messages; those that could not be sent are in `failed` afterwards."""
        # On FIFO queues a request holds one message of each group, and the next of a group is sent
        # when SQS has the one before it. Else one that failed would be overtaken.
        lanes: dict[Any, deque[Any]] = {}
        for number, message in enumerate(messages):
            lane = message[1]["MessageGroupId"] if self.ordered else number
            lanes.setdefault(lane, deque()).append(message)
        while lanes:
            heads = list(_fitting(lanes))
            taken: dict[Any, str] = {}
            try:
                refused = send_batch(self.client, self.url, {lane: lanes[lane][0][1] for lane in heads}, taken)
            except (BotoCoreError, ClientError, OSError) as error:  # boto3 has tried it repeatedly already.
                for lane in taken:
                    lanes[lane].popleft()
                # A thousand more would each wait for the same.
                self.failed += [(*task, str(error)) for lane in lanes.values() for task, _ in lane]
                return
            for lane in heads:
                (task_id, task), _ = lanes[lane].popleft()
                if lane in refused:
                    self.failed.append((task_id, task, refused[lane]))
                    for (later_id, later), _ in lanes.pop(lane):
                        self.failed.append((later_id, later, f"{task_id} before it in its group failed"))
                elif not lanes[lane]:
                    del lanes[lane]


def send_batch(client: Any, url: str, entries: Mapping[Key, dict[str, Any]], taken: dict[Key, str]) -> dict[Key, str]:
    """Send one request, and again what SQS did not take.

    Args:
        client: of SQS.
        url: of the queue.
        entries: at most `ENTRIES_PER_REQUEST`, by whatever tells them apart.
        taken: gets the ids of the messages that SQS has, also where a later request fails as a whole.

    Returns:
        The reasons of those that it never took.
    """
    refused: dict[Key, str] = {}
    reasons: dict[Key, str] = {}
    left = dict(entries)
    for attempt in range(ATTEMPTS):
        if not left:
            break
        if attempt:
            logger.warning("SQS did not take %d of %d messages", len(left), len(entries))
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1))  # noqa: S311
        keys = list(left)
        answer = client.send_message_batch(
            QueueUrl=url, Entries=[{"Id": str(index), **left[key]} for index, key in enumerate(keys)]
        )
        taken.update({keys[int(item["Id"])]: item.get("MessageId", "") for item in answer.get("Successful", [])})
        for item in answer.get("Failed", []):
            key = keys[int(item["Id"])]
            reasons[key] = f"{item.get('Code')}: {item.get('Message')}"
            if item.get("SenderFault"):
                refused[key] = reasons[key]
        # What a half answer does not tell of may have been taken or not, so it is sent again.
        left = {key: left[key] for key in keys if key not in taken and key not in refused}
    refused.update({key: reasons.get(key, "SQS did not say") for key in left})
    return refused


def _fitting(lanes: dict[Any, deque[Any]]) -> Iterator[Any]:
    """Yield the lanes whose first messages go out together."""
    size = 0
    for count, lane in enumerate(lanes):
        size += size_bytes(lanes[lane][0][1])
        if count == ENTRIES_PER_REQUEST or (count and size > MAX_REQUEST_BYTES):
            return
        yield lane
