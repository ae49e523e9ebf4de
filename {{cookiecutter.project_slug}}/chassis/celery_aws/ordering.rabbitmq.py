"""Messages on RabbitMQ: a group only says whom a message is for, and the broker itself can delay.

The group goes with the message and into the logs, so that a service may change its broker without changing its tasks.
"""

from __future__ import annotations

import math
from typing import Any

BROKER_DELAY_SECONDS = 0
"""The longest delay that is allowed whatever the contract says: none."""


def message_properties(
    task: str, task_id: str, attempt: str, group: str | None, delay_seconds: float = 0
) -> dict[str, Any]:
    """Return what Celery gets to know about a message.

    Args:
        task: name of the task.
        task_id: its id, the same on every attempt.
        attempt: what tells this sending from others of the same task.
        group: whom the message is for.
        delay_seconds: how long it is to be kept back. Celery's delayed delivery counts whole seconds
            and rounds down, so that a task would be early; this rounds up.
    """
    properties: dict[str, Any] = {"MessageGroupId": group} if group else {}
    if delay_seconds > 0:
        properties.update(countdown=math.ceil(delay_seconds), eta=None)
    return properties
