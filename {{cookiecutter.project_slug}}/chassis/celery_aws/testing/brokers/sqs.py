"""What tests ask the broker, past the service."""

from __future__ import annotations

from typing import Any


def prepare() -> None:
    """See that there is a broker for the emulator: moto is one."""


def count(service: Any, queue: Any, *, dead: bool) -> int:
    """Return how many messages a queue holds, hidden ones included."""
    attributes = service.client("sqs").get_queue_attributes(
        QueueUrl=service.url(queue, dead=dead),
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )["Attributes"]
    return sum(map(int, attributes.values()))
