"""The contract's queues in the emulated SQS."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

ACCOUNT = "123456789012"
"""The account that moto emulates."""


def unreachable(contract: Any) -> dict[str, str]:
    """Return valid environment variables of an unreachable broker, for tests that need none."""
    return _variables(contract, "http://127.0.0.1:9", "test")


def prepare_moto() -> None:
    """Patch moto before it starts."""
    from . import moto_gaps

    moto_gaps.fill()


def in_containers(contract: Any, url: str, environment: str) -> tuple[dict[str, Any], dict[str, str], str]:
    """Return services and environment variables for compose.yaml, and Python code that checks the emulator."""
    last = contract.queue_name(contract.queues[-1], environment)
    ready = f"import boto3; boto3.client('sqs').get_queue_url(QueueName={last!r})"
    return {}, _variables(contract, url, environment), ready


def _variables(contract: Any, url: str, environment: str) -> dict[str, str]:
    variables = {"QUEUE_URL_BASE": f"{url}/{ACCOUNT}"}
    if contract.long_delays:
        variables["SCHEDULER_ROLE_ARN"] = _role_arn(contract, environment)
    if contract.remote_control:
        variables["CONTROL_TABLE"] = contract.control_table_name(environment)
    return variables


def _role_arn(contract: Any, environment: str) -> str:
    """Return the ARN of a role for EventBridge Scheduler; the emulator does not ask whether it exists."""
    return f"arn:aws:iam::{ACCOUNT}:role/{contract.service}-{environment}-scheduler"


def tools_in_containers(contract: Any, contained: dict[str, Any]) -> dict[str, Any]:
    """Return further services for compose.yaml: none."""
    return {}


def create(
    contract: Any, url: str, environment: str, visibility_timeout_seconds: int | None, stack: ExitStack
) -> dict[str, str]:
    """Create all queues and dead-letter queues; return their environment variables."""
    import boto3  # Imported late: compose.py runs where boto3 and moto may not be installed.

    sqs: Any = boto3.client("sqs")
    account = boto3.client("sts").get_caller_identity()["Account"]
    # The defaults of AWS.
    every = {"SqsManagedSseEnabled": "true", "MaximumMessageSize": str(contract.max_message_bytes)}
    for queue in contract.queues:
        common = {**every, "FifoQueue": "true"} if queue.fifo else every
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
    return {
        "QUEUE_URL_BASE": f"{url}/{account}",
        **_create_scheduler(contract, environment, sqs, every),
        **_create_control_table(contract, environment),
    }


def _create_control_table(contract: Any, environment: str) -> dict[str, str]:
    """Create the table of `remote_control`; return its environment variable."""
    if not contract.remote_control:
        return {}
    import boto3

    keys = {"scope": "HASH", "key": "RANGE"}
    dynamodb, table = boto3.client("dynamodb"), contract.control_table_name(environment)
    dynamodb.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
        BillingMode="PAY_PER_REQUEST",
    )
    expiry = {"Enabled": True, "AttributeName": "expires_at"}
    dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=expiry)
    return {"CONTROL_TABLE": table}


def _create_scheduler(contract: Any, environment: str, sqs: Any, attributes: dict[str, str]) -> dict[str, str]:
    """Create what Terraform creates for delayed tasks, and send what is due; return its environment variables."""
    if not contract.long_delays:
        return {}
    import boto3

    from . import scheduler

    scheduler.start()

    boto3.client("scheduler").create_schedule_group(Name=contract.schedule_group_name(environment, delayed=True))
    sqs.create_queue(QueueName=contract.schedule_dead_letter_queue_name(environment), Attributes=attributes)
    return {"SCHEDULER_ROLE_ARN": _role_arn(contract, environment)}
