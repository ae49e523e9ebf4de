"""Message properties on SQS: delay and fairness on standard queues, order on FIFO queues.

On a standard queue a message group is optional. SQS shares the consumers fairly between groups, such
as tenants. On a FIFO queue SQS delivers the messages of a group strictly in order.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ...errors import DeduplicationError, MessageGroupMissingError
from ...headers import MAX_ID_CHARACTERS, is_identifier
from .delays import PROPERTY, scheduled_time

if TYPE_CHECKING:
    from ...contract import Queue
    from .. import Outgoing

LONGEST_DELAY_SECONDS = 900
"""Longest delay of a message of a standard queue in SQS.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-delay-queues.html
"""

FIRST_ATTEMPT = "0:0"
"""`Outgoing.attempt` of a message that is no retry."""


def longest_delay_seconds(queue: Queue | None) -> int:
    """Return the longest delay of a single message in SQS, in seconds.

    FIFO queues do not support it; there a worker holds the message, and thereby blocks its group.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    """
    return 0 if queue is not None and queue.fifo else LONGEST_DELAY_SECONDS


def message_properties(message: Outgoing) -> dict[str, Any]:
    """Return the properties of a message; see `Broker.message_properties`.

    Raises:
        DeduplicationError: the queue does not support deduplication, or not this key.
        MessageGroupMissingError: the queue requires a group.
    """
    scheduled = _scheduled(message) if message.is_scheduled else {}
    if message.queue is not None and message.queue.fifo:
        return {**fifo_properties(message), **scheduled}
    if message.deduplication_key:
        raise DeduplicationError(
            f"{message.task} was not sent: it has a deduplication_key, which only FIFO queues support. Leave it out, "
            f'or set "fifo": true for the queue in contract.json'
        )
    return {**standard_properties(message.group, 0 if scheduled else message.delay_seconds), **scheduled}


def _scheduled(message: Outgoing) -> dict[str, Any]:
    """Return the properties of a message that a one-time schedule sends, and which is due when it arrives."""
    return {PROPERTY: scheduled_time(message.task, message.delay_seconds), "countdown": None, "eta": None}


def standard_properties(group: str | None, delay_seconds: float = 0) -> dict[str, str | int]:
    """Return the properties of a message to a standard queue.

    Args:
        group: message group, for fairness.
        delay_seconds: delay. SQS delays up to `LONGEST_DELAY_SECONDS`, which occupies no slot of a
            worker; a worker delays the rest.
    """
    properties: dict[str, str | int] = {}
    if group:
        properties["MessageGroupId"] = group
    if delay_seconds > 0:
        properties["DelaySeconds"] = min(LONGEST_DELAY_SECONDS, math.ceil(delay_seconds))
    return properties


def fifo_properties(message: Outgoing) -> dict[str, str | int]:
    """Return the properties of a message to a FIFO queue; a worker handles its delay.

    Raises:
        DeduplicationError: the task's deduplication key is too long, or has other characters than SQS allows.
        MessageGroupMissingError: there is no group. kombu would use one group `default` for all
            such messages, which would run the whole queue serially.
    """
    group = message.group
    if not group and message.task.startswith("celery."):
        group = message.task_id  # Celery's internal tasks, such as `celery.chord_unlock`.
    if not group:
        raise MessageGroupMissingError(
            f"{message.task} was not sent: a FIFO queue requires a message group, within which tasks run in order: "
            f"send(task, ..., group='customer-7'), task.apply_async(..., MessageGroupId='customer-7'), or "
            f"message_group=... in the task's decorator."
        )
    # SQS drops messages with the same id for five minutes. So a repeated request must have the
    # same id, and a retry of the task another one.
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html
    # Retries of two messages with the same key are no duplicates of each other.
    is_retry = message.attempt != FIRST_ATTEMPT
    own = f"{message.task}:{message.deduplication_key}" if message.deduplication_key else message.task_id
    key = message.task_id if is_retry else own
    deduplication_id = f"{key}:{message.attempt}"
    if not is_identifier(deduplication_id):
        raise DeduplicationError(
            f"{message.task} was not sent: its deduplication_key must be ASCII letters, digits or punctuation marks "
            f"without spaces, and with the attempt at most {MAX_ID_CHARACTERS} characters; given: {deduplication_id!r}"
        )
    return {"MessageGroupId": group, "MessageDeduplicationId": deduplication_id}
