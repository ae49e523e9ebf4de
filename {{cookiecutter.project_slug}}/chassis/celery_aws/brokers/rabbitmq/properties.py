"""Message properties on RabbitMQ: the broker delays messages, and groups have no effect.

The group is still part of messages and logs, so that a service can change its broker without
changing its tasks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ...contract import Queue
from ...errors import DeduplicationError

if TYPE_CHECKING:
    from .. import Outgoing


def longest_delay_seconds(queue: Queue | None) -> int:
    """Return 0: the longest delay is `max_countdown_seconds` of the contract."""
    return 0


def message_properties(message: Outgoing) -> dict[str, Any]:
    """Return the properties of a message; see `Broker.message_properties`.

    Delays are rounded up to whole seconds: Celery's delayed delivery rounds down, which is too early.

    Raises:
        DeduplicationError: the task has a deduplication key, which RabbitMQ does not support.
    """
    if message.deduplication_key:
        raise DeduplicationError(
            f"{message.task} was not sent: RabbitMQ does not support its deduplication_key. Leave it out, and let the "
            f"task itself skip what is done"
        )
    properties: dict[str, Any] = {"MessageGroupId": message.group} if message.group else {}
    if message.delay_seconds > 0:
        properties.update(countdown=math.ceil(message.delay_seconds), eta=None)
    return properties
