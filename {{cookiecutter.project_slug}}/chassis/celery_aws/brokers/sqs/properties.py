"""What SQS gets to know about a message: on standard queues delay and fairness, on FIFO queues order.

On a standard queue a message group is optional: SQS lets no group (a tenant, say) hold up the others by a flood of
messages of its own. On a FIFO queue SQS delivers the messages of one group strictly in order.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
"""

from __future__ import annotations

import math

from ...contract import Contract
from ...errors import MessageGroupMissingError

LONGEST_DELAY_SECONDS = 900
"""For how long SQS itself delays a message of a standard queue.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-delay-queues.html
"""


def longest_delay_seconds(contract: Contract) -> int:
    """Return for how long SQS itself delays a message.

    It delays no single message of a FIFO queue; a worker holds it, and with it its group.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    """
    return 0 if contract.is_fifo else LONGEST_DELAY_SECONDS


def message_properties(
    contract: Contract, task: str, task_id: str, attempt: str, group: str | None, delay_seconds: float
) -> dict[str, str | int]:
    """Return what SQS gets to know about a message; see `Broker`."""
    if contract.is_fifo:
        return fifo_properties(task, task_id, attempt, group)
    return standard_properties(group, delay_seconds)


def standard_properties(group: str | None, delay_seconds: float = 0) -> dict[str, str | int]:
    """Return what goes with a message to a standard queue.

    Args:
        group: whom the message is for.
        delay_seconds: how long it is to be delayed. What SQS does of it costs no slot of a
            worker, and its visibility timeout has not begun.
    """
    properties: dict[str, str | int] = {}
    if group:
        properties["MessageGroupId"] = group
    if delay_seconds > 0:
        properties["DelaySeconds"] = min(LONGEST_DELAY_SECONDS, math.ceil(delay_seconds))
    return properties


def fifo_properties(task: str, task_id: str, attempt: str, group: str | None) -> dict[str, str | int]:
    """Return what goes with a message to a FIFO queue, whose delay is the worker's to do.

    Raises:
        MessageGroupMissingError: there is no group. kombu would put the message into one group named
            `default` with all others of its kind, and so run the whole queue one by one.
    """
    if not group and task.startswith("celery."):
        group = task_id  # Celery's own helpers, such as the one that ends a chord.
    if not group:
        raise MessageGroupMissingError(
            f"{task} was sent to a FIFO queue without a message group. Name what its order matters "
            f"to: send(task, ..., group='customer-7'), or "
            f"task.apply_async(..., MessageGroupId='customer-7')."
        )
    return {
        "MessageGroupId": group,
        # SQS drops a second message of the same id for five minutes. So a client that repeats a
        # request must repeat the id, and a retry of the task must not.
        # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html
        "MessageDeduplicationId": f"{task_id}:{attempt}",
    }
