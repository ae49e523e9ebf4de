"""Message groups on standard queues: optional, and about fairness instead of order.

SQS lets no group (a tenant, say) hold up the others by a flood of messages of its own.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
"""

from __future__ import annotations


def message_properties(task: str, task_id: str, attempt: str, group: str | None) -> dict[str, str]:
    """Return what SQS gets to know about a message.

    Args:
        task: name of the task.
        task_id: its id, the same on every attempt.
        attempt: what tells this sending from others of the same task.
        group: whom the message is for.
    """
    return {"MessageGroupId": group} if group else {}
