"""Message properties on RabbitMQ: the broker delays messages, and groups have no effect.

The group is still part of messages and logs, so that a service can change its broker without
changing its tasks.
"""

from __future__ import annotations

import math
from typing import Any

from ...contract import Contract


def longest_delay_seconds(contract: Contract) -> int:
    """Return 0: the longest delay is `max_countdown_seconds` of the contract."""
    return 0


def message_properties(
    contract: Contract, task: str, task_id: str, attempt: str, group: str | None, delay_seconds: float
) -> dict[str, Any]:
    """Return the properties of a message; see `Broker.message_properties`.

    Delays are rounded up to whole seconds: Celery's delayed delivery rounds down, which is too early.
    """
    properties: dict[str, Any] = {"MessageGroupId": group} if group else {}
    if delay_seconds > 0:
        properties.update(countdown=math.ceil(delay_seconds), eta=None)
    return properties
