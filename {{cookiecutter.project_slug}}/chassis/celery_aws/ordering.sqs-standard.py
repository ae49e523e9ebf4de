"""Messages on standard queues: a group is optional and about fairness, and SQS itself can delay.

SQS lets no group (a tenant, say) hold up the others by a flood of messages of its own.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
"""

from __future__ import annotations

import math

BROKER_DELAY_SECONDS = 900
"""The longest time SQS itself keeps a message back.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-delay-queues.html
"""


def message_properties(
    task: str, task_id: str, attempt: str, group: str | None, delay_seconds: float = 0
) -> dict[str, str | int]:
    """Return what SQS gets to know about a message.

    Args:
        task: name of the task.
        task_id: its id, the same on every attempt.
        attempt: what tells this sending from others of the same task.
        group: whom the message is for.
        delay_seconds: how long it is to be kept back. What SQS does of it costs no place in a
            worker, and its visibility timeout has not begun.
    """
    properties: dict[str, str | int] = {}
    if group:
        properties["MessageGroupId"] = group
    if delay_seconds > 0:
        properties["DelaySeconds"] = min(BROKER_DELAY_SECONDS, math.ceil(delay_seconds))
    return properties
