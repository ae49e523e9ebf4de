"""Message properties on SQS: delay and fairness on standard queues, order on FIFO queues.

On a standard queue a message group is optional. SQS shares the consumers fairly between groups, such
as tenants. On a FIFO queue SQS delivers the messages of a group strictly in order.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
"""

from __future__ import annotations

import math

from ...contract import Contract
from ...errors import MessageGroupMissingError

LONGEST_DELAY_SECONDS = 900
"""Longest delay of a message of a standard queue in SQS.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-delay-queues.html
"""


def longest_delay_seconds(contract: Contract) -> int:
    """Return the longest delay of a single message in SQS, in seconds.

    FIFO queues do not support it; there a worker holds the message, and thereby blocks its group.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    """
    return 0 if contract.is_fifo else LONGEST_DELAY_SECONDS


def message_properties(
    contract: Contract, task: str, task_id: str, attempt: str, group: str | None, delay_seconds: float
) -> dict[str, str | int]:
    """Return the properties of a message; see `Broker.message_properties`."""
    if contract.is_fifo:
        return fifo_properties(task, task_id, attempt, group)
    return standard_properties(group, delay_seconds)


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


def fifo_properties(task: str, task_id: str, attempt: str, group: str | None) -> dict[str, str | int]:
    """Return the properties of a message to a FIFO queue; a worker handles its delay.

    Raises:
        MessageGroupMissingError: there is no group. kombu would use one group `default` for all
            such messages, which would run the whole queue serially.
    """
    if not group and task.startswith("celery."):
        group = task_id  # Celery's internal tasks, such as `celery.chord_unlock`.
    if not group:
        raise MessageGroupMissingError(
            f"{task} was not sent: a FIFO queue requires a message group, within which tasks run in order: "
            f"send(task, ..., group='customer-7'), or "
            f"task.apply_async(..., MessageGroupId='customer-7')."
        )
    return {
        "MessageGroupId": group,
        # SQS drops messages with the same id for five minutes. So a repeated request must have the
        # same id, and a retry of the task another one.
        # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html
        "MessageDeduplicationId": f"{task_id}:{attempt}",
    }
