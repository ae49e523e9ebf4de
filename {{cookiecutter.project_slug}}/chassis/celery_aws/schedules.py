"""Describes schedules, and sends their tasks as EventBridge Scheduler does on SQS.

A task that is due has an id made of its schedule and the time, so that one that is sent twice is the same task.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from .contract import Contract, Schedule
from .contract.schedules import due_times
from .headers import SCHEDULED_TIME_HEADER

if TYPE_CHECKING:
    from celery.result import AsyncResult

    from .sending import Service

SCHEDULED_TIME = "{scheduled_time}"
"""Stands in arguments for the time at which the task is due."""

AT_SCHEDULER = "<aws.scheduler.scheduled-time>"
"""What EventBridge Scheduler replaces by that time.

https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html
"""


NEXT = 3
"""How many of the next times are shown."""


def as_text(due: datetime) -> str:
    """Return a time as EventBridge Scheduler writes it: `2027-01-31T06:30:00Z`."""
    return due.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def task_id(schedule: Schedule, due: datetime) -> str:
    """Return the id of the task that is due at a time."""
    return f"{schedule.name}-{as_text(due)}"


def arguments(schedule: Schedule, time: str) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments of the task that is due at a time, or with `AT_SCHEDULER`, as they are in a schedule."""
    args, kwargs = json.loads(json.dumps([schedule.args, schedule.kwargs]).replace(SCHEDULED_TIME, time))
    return args, kwargs


def send(app: Service[Any], schedule: Schedule, due: datetime) -> AsyncResult[Any]:
    """Send the task that is due at a time, with the message that EventBridge Scheduler would send.

    Raises:
        RefusedError: the task cannot be sent; see `Service.send_task`.
    """
    contract = app.contract
    args, kwargs = arguments(schedule, as_text(due))
    return app.send_task(
        contract.full_name(schedule.task),
        args,
        kwargs,
        task_id=task_id(schedule, due),
        queue=contract.celery_name(contract.queue_of(schedule)),
        headers={SCHEDULED_TIME_HEADER: as_text(due)},
        **({"MessageGroupId": schedule.group} if schedule.group else {}),
    )


def described(contract: Contract, schedule: Schedule) -> dict[str, Any]:
    """Return what is shown of a schedule."""
    # A rate counts from when EventBridge Scheduler created the schedule.
    is_known = schedule.enabled and not (schedule.rate_minutes and contract.broker != "rabbitmq")
    times = itertools.islice(due_times(schedule, datetime.now(timezone.utc)), NEXT) if is_known else ()
    return {
        "name": schedule.name,
        "task": schedule.task,
        "queue": contract.queue_of(schedule).name,
        "when": when(schedule),
        "next": [as_text(due) for due in times],
    }


def when(schedule: Schedule) -> str:
    """Return when a schedule is due, in words."""
    place = "" if schedule.timezone == "UTC" or schedule.rate_minutes else f" {schedule.timezone}"
    text = f"every {schedule.rate_minutes} min" if schedule.rate_minutes else f"{schedule.cron or schedule.at}{place}"
    return text if schedule.enabled else f"{text}, disabled"


def add_live(rows: list[dict[str, Any]], env: Any) -> None:
    """Add what EventBridge Scheduler has of each schedule, and rows of those that are not in the contract.

    Args:
        rows: descriptions of the schedules, from `described`.
        env: an environment on SQS.
    """
    live = {each["Name"]: each for each in env.live_schedules()}
    for row in rows:
        found = live.pop(row["name"], None)
        row["at_aws"] = f"{found['State'].lower()}, {found['ScheduleExpression']}" if found else "does not exist"
    for name, found in live.items():
        state = f"{found['State'].lower()}, {found['ScheduleExpression']}, not in the contract"
        rows.append({"name": name, "task": "", "queue": "", "when": "", "at_aws": state, "next": []})
