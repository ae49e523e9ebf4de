"""What tests do at the broker, past the service."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

QUEUE_RIGHTS: tuple[str, ...] = ("sqs:",)
"""Prefix of the names of AWS permissions for a queue."""


@dataclass(frozen=True)
class Seen:
    """A message in a dead-letter queue."""

    reason: dict[str, str]
    """Why it is there, as the service says."""
    group: str | None
    """Its message group, where the broker keeps one."""


def held(service: Any) -> int:
    """Return how many messages of the first queue workers hold; a look at them would count as a delivery."""
    name = "ApproximateNumberOfMessagesNotVisible"
    found = service.client("sqs").get_queue_attributes(QueueUrl=service.url(), AttributeNames=[name])
    return int(found["Attributes"][name])


def empty(service: Any, *, dead: bool) -> None:
    """Take what can be received out of the first queue, or out of its dead-letter queue."""
    sqs, url = service.client("sqs"), service.url(dead=dead)
    while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in found:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def given_back(service: Any) -> bool:
    """Return whether the message can be received right away, though its visibility timeout is far from over."""
    found = service.client("sqs").receive_message(QueueUrl=service.url(), VisibilityTimeout=0, WaitTimeSeconds=1)
    return len(found.get("Messages", [])) == 1


def see_dead(service: Any) -> Seen:
    """Return the message in the dead-letter queue of the first queue, and leave it there."""
    (message,) = service.client("sqs").receive_message(
        QueueUrl=service.url(dead=True), MessageAttributeNames=["All"], AttributeNames=["All"], VisibilityTimeout=0
    )["Messages"]
    reason = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    return Seen(reason, message["Attributes"].get("MessageGroupId"))


def page_variables(service: Any) -> dict[str, str]:
    """Return what the examples of docs/messages.md read, besides the environment variables of AWS."""
    return {"QUEUE_URL": service.url()}


def put(service: Any, message: dict[str, Any]) -> None:
    """Send a message to the first queue as it is; a body that is no text becomes JSON."""
    body = message["body"] if isinstance(message["body"], str) else json.dumps(message["body"])
    order = {"MessageGroupId": "g", "MessageDeduplicationId": str(uuid.uuid4())} if service.queue.fifo else {}
    text = json.dumps({**message, "body": body})
    service.client("sqs").send_message(QueueUrl=service.url(), MessageBody=text, **order)


def received(service: Any) -> list[dict[str, Any]]:
    """Take all messages out of the first queue, and return them with their bodies decoded, as the schema has them."""
    sqs, url, found = service.client("sqs"), service.url(), []
    # The emulator counts delays, which are short in tests.
    while page := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=2).get("Messages"):
        for message in page:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            envelope = json.loads(message["Body"])
            found.append({**envelope, "body": json.loads(envelope["body"])})
    return found


def redrive(service: Any) -> None:
    """Move the dead-letter messages of the first queue back to it."""
    sqs = service.client("sqs")

    def arn(*, dead: bool) -> str:
        url = service.url(dead=dead)
        return str(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"])

    sqs.start_message_move_task(SourceArn=arn(dead=True), DestinationArn=arn(dead=False))


def send_foreign(service: Any, task: str, args: list[Any], eta_in_seconds: float | None = None, **headers: Any) -> None:
    """Send a task to the first queue as a plain Celery client does."""
    task_id = str(uuid.uuid4())
    eta = datetime.now(timezone.utc) + timedelta(seconds=eta_in_seconds) if eta_in_seconds else None
    about = {"task": task, "id": task_id, "root_id": task_id, "eta": eta and eta.isoformat(), **headers}
    properties = {"correlation_id": task_id, "delivery_info": dict[str, str]()}
    body = {
        "body": json.dumps([args, {}, {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": about,
        "properties": properties,
    }
    order = {"MessageGroupId": "g", "MessageDeduplicationId": task_id} if service.url().endswith(".fifo") else {}
    service.client("sqs").send_message(QueueUrl=service.url(), MessageBody=json.dumps(body), **order)


@contextlib.contextmanager
def faulty(service: Any) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield a proxy in front of the broker, and the environment variables that lead a worker through it."""
    from library.aws_faults import proxy

    with proxy(service.environment["AWS_ENDPOINT_URL"]) as between:
        yield between, {"AWS_ENDPOINT_URL": between.url}
