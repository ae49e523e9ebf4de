"""Sends what schedules in moto are due for; moto only keeps them.

As in EventBridge Scheduler, a message is sent at least once: after it was sent, and before a one-time schedule is
deleted, anything can fail. Its identity is the time at which it was due.
https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ....contract import Schedule
from ....contract.schedules import due_times
from ....schedules import AT_SCHEDULER

logger = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 0.2

SEND_MESSAGE = "aws-sdk:sqs:sendMessage"
"""The only target that is known here."""


def now() -> datetime:
    """Return the time, moved by the seconds in the file that EMULATED_TIME_FILE names, for tests."""
    moved = os.environ.get("EMULATED_TIME_FILE")
    seconds = float(Path(moved).read_text(encoding="utf-8") or 0) if moved and Path(moved).exists() else 0
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def start() -> None:
    """Send what is due, in a thread that ends with the process."""
    threading.Thread(target=_run, name="scheduler", daemon=True).start()


def _run() -> None:
    sender = Sender()
    while True:
        try:
            sender.send_due(now())
        except Exception:
            logger.exception("a schedule was not sent")
        time.sleep(LOOK_EVERY_SECONDS)


class Sender:
    """Sends messages of schedules, and remembers until when it has done so."""

    def __init__(self) -> None:
        self._done_until: dict[str, datetime] = {}
        """By the ARN of a schedule."""

    def send_due(self, until: datetime) -> None:
        """Send the messages of all schedules that are due until a time."""
        for group, schedule in _schedules():
            for due in _due(schedule, self._done_until.get(schedule.arn), until):
                if schedule.state == "ENABLED" and not _send(schedule, due, until):
                    break
                self._done_until[schedule.arn] = due
                if schedule.action_after_completion == "DELETE":
                    group.schedules.pop(schedule.name, None)
                    self._done_until.pop(schedule.arn)


def _schedules() -> Iterator[tuple[Any, Any]]:
    """Yield the schedules in moto, with their groups."""
    from moto.scheduler.models import scheduler_backends

    for account in list(scheduler_backends.values()):
        for backend in list(account.values()):
            for group in list(backend.schedule_groups.values()):
                yield from ((group, schedule) for schedule in list(group.schedules.values()))


def _due(schedule: Any, done_until: datetime | None, until: datetime) -> Iterator[datetime]:
    """Yield the times until another at which a schedule is due, and has not been sent."""
    kind, _, value = schedule.schedule_expression.rstrip(")").partition("(")
    begun = datetime.fromtimestamp(schedule.creation_date, timezone.utc)
    if kind == "rate":
        # The first is due at once.
        # https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#rate-based
        minutes, due = int(value.split()[0]), begun
        while due <= until:
            if done_until is None or due > done_until:
                yield due
            due += timedelta(minutes=minutes)
        return
    shape = Schedule(name=schedule.name, task="", timezone=schedule.schedule_expression_timezone, **_time(kind, value))
    if kind == "at":
        begun = datetime.fromtimestamp(0, timezone.utc)  # One that is in the past is sent at once.
    for due in due_times(shape, done_until or begun):
        if due > until:
            return
        yield due


def _time(kind: str, value: str) -> dict[str, Any]:
    """Return `at` or `cron` of the contract for an expression of EventBridge Scheduler."""
    if kind == "at":
        return {"at": value}
    minute, hour, day, month, weekday, _ = value.split()
    weekday = re.sub(r"\d", lambda digit: str(int(digit[0]) - 1), weekday)
    return {"cron": " ".join((minute, hour, day, month, weekday)).replace("?", "*")}


def _send(schedule: Any, due: datetime, until: datetime) -> bool:
    """Send a message, or dead-letter it if it is too late; return whether the schedule has done with this time."""
    from moto.sqs.models import sqs_backends

    _, _, _, region, account, _ = schedule.arn.split(":", 5)
    sqs = sqs_backends[account][region]
    if not schedule.target["Arn"].endswith(SEND_MESSAGE):
        return True
    text = schedule.target["Input"].replace(AT_SCHEDULER, due.strftime("%Y-%m-%dT%H:%M:%SZ"))
    text = text.replace("<aws.scheduler.schedule-arn>", schedule.arn)
    request = json.loads(text)
    try:
        sqs.send_message(
            request["QueueUrl"].rpartition("/")[2],
            request["MessageBody"],
            group_id=request.get("MessageGroupId"),
            deduplication_id=request.get("MessageDeduplicationId"),
        )
    except Exception as error:  # noqa: BLE001 - the queue may be missing, for example
        if (until - due).total_seconds() < schedule.target["RetryPolicy"]["MaximumEventAgeInSeconds"]:
            return False
        dead_letters = schedule.target.get("DeadLetterConfig", {}).get("Arn", "").rpartition(":")[2]
        logger.warning("schedule %s is dead-lettered: %s", schedule.name, error)
        if dead_letters:
            sqs.send_message(dead_letters, text)
    return True
