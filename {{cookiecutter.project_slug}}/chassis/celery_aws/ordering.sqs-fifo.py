"""Messages on FIFO queues: SQS delivers the messages of one group strictly in order.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
"""

from __future__ import annotations

from .errors import MessageGroupMissingError

BROKER_DELAY_SECONDS = 0
"""SQS keeps no single message of a FIFO queue back; a worker holds it, and with it its group.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""


def message_properties(
    task: str, task_id: str, attempt: str, group: str | None, delay_seconds: float = 0
) -> dict[str, str | int]:
    """Return what SQS gets to know about a message.

    Args:
        task: name of the task.
        task_id: its id, the same on every attempt.
        attempt: what tells this sending from others of the same task.
        group: what the message must stay in order with.
        delay_seconds: how long it is to be kept back, which is the worker's to do.

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
