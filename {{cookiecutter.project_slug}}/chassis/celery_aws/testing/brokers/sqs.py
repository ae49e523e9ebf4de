"""Access of tests to SQS."""

from __future__ import annotations

from typing import Any


def prepare() -> None:
    """Do nothing: moto emulates the broker."""


def count(service: Any, queue: Any, *, dead: bool) -> int:
    """Return the number of messages in a queue, including those in flight."""
    attributes = service.client("sqs").get_queue_attributes(
        QueueUrl=service.url(queue, dead=dead),
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )["Attributes"]
    return sum(map(int, attributes.values()))
