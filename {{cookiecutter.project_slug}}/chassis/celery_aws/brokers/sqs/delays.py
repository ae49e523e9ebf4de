"""Delayed tasks that no queue can hold, as one-time schedules of EventBridge Scheduler.

Such a schedule sends the message when it is due, and is deleted then. Its name is made of the task's id,
so that a producer that tries again does not create a second one.
https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#one-time
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ...contract import Contract
from ...contract.rules import MAX_SCHEDULE_BYTES
from ...contract.schedules import LAST_YEAR
from ...errors import CountdownTooLongError, MessageTooLargeError, UnsupportedDelayError

logger = logging.getLogger(__name__)

PROPERTY = "ScheduledTime"
"""Property of a message with the time in UTC at which it is to be sent."""

LEAD_SECONDS = 60
"""Shortest time until a schedule is due; a queue that can hold no message may have shorter delays."""

RETRY_FOR_SECONDS = 86_400
"""How long EventBridge Scheduler tries to send a message that is due; then it goes to the dead-letter queue."""
RETRIES = 185

_NAME = re.compile(r"[0-9a-zA-Z_.-]{1,50}")
"""Ids of tasks that can be part of the name of a schedule, with an attempt."""


@dataclass(frozen=True)
class Scheduler:
    """Where the schedules of delayed tasks are, and what they use."""

    group: str
    """Name of their schedule group."""
    role_arn: str
    """The role with which EventBridge Scheduler sends."""
    dead_letter_arn: str
    """ARN of the queue of messages that could not be sent."""
    kms_key_arn: str
    """The owner's KMS key; empty for that of AWS."""

    @property
    def target_arn(self) -> str:
        """ARN of the target for SQS's own API, which takes message groups and deduplication ids.

        https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-targets-universal.html
        """
        return f"arn:{self.role_arn.split(':')[1]}:scheduler:::aws-sdk:sqs:sendMessage"


def scheduler(contract: Contract, role_arn: str, kms_key_arn: str, environment: str) -> Scheduler:
    """Return where the schedules of an environment are."""
    _, partition, _, _, account, *_ = role_arn.split(":")
    queue = contract.schedule_dead_letter_queue_name(environment)
    return Scheduler(
        contract.schedule_group_name(environment, delayed=True),
        role_arn,
        f"arn:{partition}:sqs:{contract.region}:{account}:{queue}",
        kms_key_arn,
    )


def scheduled_time(task: str, delay_seconds: float) -> str:
    """Return the time in UTC of the schedule for a delay, as a schedule expression takes it.

    EventBridge Scheduler sends within a minute, so the time is the next full minute after the delay. It is
    a minute from now at least, so that it is not over when the schedule is created.

    Raises:
        CountdownTooLongError: the time is too far in the future.
    """
    try:
        due = datetime.now(timezone.utc) + timedelta(seconds=max(delay_seconds, LEAD_SECONDS) + 59.999999)
    except OverflowError:
        due = datetime.max
    if due.year > LAST_YEAR:
        raise CountdownTooLongError(f"{task} was not sent: it is due after {LAST_YEAR}, when no schedule can be")
    return due.strftime("%Y-%m-%dT%H:%M:00")


def name_of(headers: Mapping[str, Any]) -> str:
    """Return the name of a task's schedule; a retry of the task has another one."""
    attempt = f"{headers.get('retries') or 0}-{headers.get('replaced_task_nesting') or 0}"
    return f"{prefix_of(str(headers['id']))}{attempt}"


def prefix_of(task_id: str) -> str:
    """Return what the names of the schedules of a task and of its retries begin with."""
    if not _NAME.fullmatch(task_id):
        task_id = hashlib.sha256(task_id.encode()).hexdigest()[:40]
    return f"{task_id}."


def request(place: Scheduler, message: Mapping[str, Any], url: str, made: Mapping[str, Any], at: str) -> dict[str, Any]:
    """Return the parameters of the CreateSchedule request for a message.

    Args:
        place: where the schedule is to be.
        message: the message.
        url: URL of the queue.
        made: parameters of the SendMessage request, without the queue.
        at: time in UTC; see `scheduled_time`.

    Raises:
        MessageTooLargeError: the request would be too large.
        UnsupportedDelayError: a message attribute is binary.
    """
    if any("BinaryValue" in attribute for attribute in (made.get("MessageAttributes") or {}).values()):
        raise UnsupportedDelayError(
            f"{message['headers'].get('task')} was not sent: a schedule is JSON, so a delayed task can have no binary "
            f"message attributes. Send them as text."
        )
    # Escaped, because EventBridge Scheduler replaces placeholders in angle brackets.
    send = json.dumps({"QueueUrl": url, **made}).replace("<", "\\u003c")
    if len(send) > MAX_SCHEDULE_BYTES:
        raise MessageTooLargeError(
            f"{message['headers'].get('task')} was not sent: its schedule has {len(send):,} bytes, and EventBridge "
            f"Scheduler takes {MAX_SCHEDULE_BYTES:,}. Store large data elsewhere, and send its location."
        )
    return {
        "Name": name_of(message["headers"]),
        "GroupName": place.group,
        "ScheduleExpression": f"at({at})",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {
            "Arn": place.target_arn,
            "RoleArn": place.role_arn,
            "Input": send,
            "RetryPolicy": {"MaximumEventAgeInSeconds": RETRY_FOR_SECONDS, "MaximumRetryAttempts": RETRIES},
            "DeadLetterConfig": {"Arn": place.dead_letter_arn},
        },
        **({"KmsKeyArn": place.kms_key_arn} if place.kms_key_arn else {}),
    }


def create(client: Any, parameters: Mapping[str, Any]) -> None:
    """Create a schedule, unless there is one for the same task.

    Args:
        client: a boto3 client of EventBridge Scheduler.
        parameters: see `request`.

    Raises:
        botocore.exceptions.ClientError: EventBridge Scheduler refused it.
        botocore.exceptions.BotoCoreError: there was no response.
    """
    try:
        client.create_schedule(**parameters)
    except client.exceptions.ConflictException:
        logger.warning("delayed task %s is scheduled already, and stays as it is", parameters["Name"])
