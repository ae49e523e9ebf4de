"""Messages for the tests of the on-call commands."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import Any

from library.support import RunningService


def put(
    service: RunningService, bodies: Iterable[str], *, dead: bool = True, groups: int = 100_000, **more: object
) -> None:
    """Put messages into the dead-letter queue of the first queue, or into the queue itself.

    Each is in a group of its own, unless there are to be fewer: of a FIFO queue, the emulator shows the first message
    of each group, and AWS the first ten.
    """
    sqs, url, fifo = service.client("sqs"), service.url(dead=dead), service.queue.fifo
    made = []
    for number, body in enumerate(bodies):
        made.append({"Id": str(number % 10), "MessageBody": body, "MessageGroupId": f"group-{number % groups}", **more})
        if fifo:
            made[-1]["MessageDeduplicationId"] = str(uuid.uuid4())
        if len(made) == 10:  # Kept are no more: a process that is started counts the memory of this one as its own.
            _send(sqs, url, made)
            made = []
    if made:
        _send(sqs, url, made)


def _send(sqs: Any, url: str, entries: list[dict[str, Any]]) -> None:
    """Send messages, all of which must be accepted."""
    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert not answer.get("Failed"), answer["Failed"]


def celery_body(number: int, task: str = "library.probes.leave_trace") -> str:
    """Return the body of a message as the service sends it."""
    return json.dumps(
        {
            "body": json.dumps([[f"argument {number}"], {}, {}]),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": task, "id": f"{number:08d}-aaaa", "retries": 0},
            "properties": {"delivery_tag": "t", "delivery_mode": 2, "body_encoding": None},
        }
    )


def bodies(service: RunningService, *, dead: bool) -> list[str]:
    """Take all messages out of a queue, and return their bodies."""
    sqs, url, found = service.client("sqs"), service.url(dead=dead), []
    while page := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages"):
        for message in page:
            found.append(message["Body"])
        sqs.delete_message_batch(
            QueueUrl=url,
            Entries=[{"Id": str(i), "ReceiptHandle": message["ReceiptHandle"]} for i, message in enumerate(page)],
        )
    return found
