"""The queues of the contract, in the emulated SQS."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

ACCOUNT = "123456789012"

UNREACHABLE: dict[str, str] = {"QUEUE_URL_BASE": f"http://127.0.0.1:9/{ACCOUNT}"}
"""Environment variables that fit and lead nowhere, for tests that want no broker."""


def prepare_moto() -> None:
    """Change moto before it starts."""
    from . import moto_gaps

    moto_gaps.fill()


def in_containers(contract: Any, url: str, environment: str) -> tuple[dict[str, Any], dict[str, str], str]:
    """Return services and variables for compose.yaml, and the Python that succeeds if the emulator is ready."""
    last = contract.queue_name(contract.queues[-1], environment)
    ready = f"import boto3; boto3.client('sqs').get_queue_url(QueueName={last!r})"
    return {}, {"QUEUE_URL_BASE": f"{url}/{ACCOUNT}"}, ready


def beside(contract: Any, contained: dict[str, Any]) -> dict[str, Any]:
    """Return the services for compose.yaml that look at the workers: none."""
    return {}


def create(
    contract: Any, url: str, environment: str, visibility_timeout_seconds: int | None, stack: ExitStack
) -> dict[str, str]:
    """Create every queue with its dead-letter queue; return the environment variables that lead to them."""
    import boto3  # Only now: compose.yaml is made where neither boto3 nor moto may be installed.

    sqs: Any = boto3.client("sqs")
    # As AWS creates a queue today.
    common = {"SqsManagedSseEnabled": "true", "MaximumMessageSize": str(contract.max_message_bytes)}
    if contract.suffix:
        common["FifoQueue"] = "true"
    for queue in contract.queues:
        dead_letters = sqs.create_queue(
            QueueName=contract.dead_letter_queue_name(queue, environment),
            Attributes={**common, "MessageRetentionPeriod": str(contract.dead_letter_retention_seconds)},
        )["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])
        redrive = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": queue.max_receive_count}
        visibility_timeout = visibility_timeout_seconds or queue.visibility_timeout_seconds
        sqs.create_queue(
            QueueName=contract.queue_name(queue, environment),
            Attributes={
                **common,
                "VisibilityTimeout": str(visibility_timeout),
                "MessageRetentionPeriod": str(queue.retention_seconds),
                "ReceiveMessageWaitTimeSeconds": str(contract.wait_time_seconds),
                "RedrivePolicy": json.dumps(redrive),
            },
        )
    return {"QUEUE_URL_BASE": f"{url}/{ACCOUNT}"}
