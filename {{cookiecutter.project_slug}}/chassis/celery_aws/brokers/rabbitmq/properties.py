"""Messages on RabbitMQ: a group only says whom a message is for, and the broker itself can delay.

The group goes with the message and into the logs, so that a service may change its broker without changing its tasks.
"""

from __future__ import annotations

import math
from typing import Any

from ...contract import Contract


def longest_delay_seconds(contract: Contract) -> int:
    """Return for how long the broker delays a message, whatever the contract says: not at all."""
    return 0


def message_properties(
    contract: Contract, task: str, task_id: str, attempt: str, group: str | None, delay_seconds: float
) -> dict[str, Any]:
    """Return what goes with a message; see `Broker`.

    Celery's delayed delivery counts whole seconds and rounds down, so that a task would be early; this rounds up.
    """
    properties: dict[str, Any] = {"MessageGroupId": group} if group else {}
    if delay_seconds > 0:
        properties.update(countdown=math.ceil(delay_seconds), eta=None)
    return properties
