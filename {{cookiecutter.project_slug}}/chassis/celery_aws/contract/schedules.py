"""When schedules are due: cron expressions with five fields, rates and dates."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from .model import Schedule

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
"""The fields of a cron expression: name, lowest and highest value, and names of values."""


LAST_YEAR = 2199
"""Last year of a schedule.

https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#cron-based
"""

MAX_EXPRESSION_CHARACTERS = 256
"""Longest schedule expression.

https://docs.aws.amazon.com/scheduler/latest/APIReference/API_CreateSchedule.html
"""


def cron_values(expression: str) -> list[list[int]]:
    """Return the values of each field of a cron expression; days of the week count from 0 for Sunday.

    Raises:
        ValueError: it is invalid; the message says which field and why.
    """
    fields = expression.split(" ")  # Single spaces only, so that Terraform cannot read it differently.
    if len(fields) != len(FIELDS):
        raise ValueError(f"it has {len(fields)} fields")
    values = [_field_values(text, *bounds) for text, bounds in zip(fields, FIELDS, strict=True)]
    if fields[2] != "*" and fields[4] != "*":
        raise ValueError("the day of the month or the day of the week must be *; state two schedules instead")
    values[4] = sorted({day % 7 for day in values[4]})
    if fields[4] == "*" and not any(day <= _longest(month) for month in values[3] for day in values[2]):
        raise ValueError("none of its months has such a day")
    return values


def _field_values(text: str, name: str, low: int, high: int, names: dict[str, int]) -> list[int]:
    found: set[int] = set()
    for item in text.lower().split(","):
        matched = re.fullmatch(r"(\*|(\w+)(?:-(\w+))?)(?:/([0-9]{1,4}))?", item, re.ASCII)
        if matched is None:
            raise ValueError(f"{item!r} is no {name}")
        span, first, last, step = matched.groups()
        if span == "*":
            begin, end = low, high
        else:
            begin = _number(first, name, low, high, names)
            end = _number(last, name, low, high, names) if last else high if step else begin
        if begin > end or step == "0":
            raise ValueError(f"{item!r} has no values")
        found.update(range(begin, end + 1, int(step or 1)))
    return sorted(found)


def _number(text: str, name: str, low: int, high: int, names: dict[str, int]) -> int:
    number = names.get(text, int(text) if re.fullmatch("[0-9]{1,4}", text) else -1)
    if not low <= number <= high:
        raise ValueError(f"{text!r} is no {name} from {low} to {high}")
    return number


def _longest(month: int) -> int:
    return 29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31


def expression_of(schedule: Schedule) -> str:
    """Return the schedule expression of EventBridge Scheduler; schedules_sqs.tf derives the same.

    https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
    """
    if schedule.at:
        return f"at({schedule.at})"
    if schedule.rate_minutes:
        return f"rate({schedule.rate_minutes} minute{'s' if schedule.rate_minutes > 1 else ''})"
    return _scheduler_cron(schedule.cron)


def fits_scheduler(cron: str) -> bool:
    """Return whether EventBridge Scheduler takes a cron expression, which is longer there."""
    return len(_scheduler_cron(cron)) <= MAX_EXPRESSION_CHARACTERS


def _scheduler_cron(cron: str) -> str:
    """Return a cron expression with six fields.

    Days of the week count from 1 for Sunday, and one of the two days must be `?`.
    """
    fields, values = cron.split(" "), cron_values(cron)
    values[4] = [day + 1 for day in values[4]]
    texts = ["*" if text == "*" else ",".join(map(str, each)) for text, each in zip(fields, values, strict=True)]
    minute, hour, day, month, weekday = texts
    day, weekday = (day, "?") if weekday == "*" else ("?", weekday)
    return f"cron({minute} {hour} {day} {month} {weekday} *)"


def zone(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        ValueError: there is no time zone of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}") from None


def is_date(text: str) -> bool:
    """Return whether a text is a date and time as `at` takes it, from 2000 to `LAST_YEAR`."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    matched = re.fullmatch(r"([0-9]{4})-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}", text, re.ASCII)
    return matched is not None and 2000 <= int(matched[1]) <= LAST_YEAR


def is_cron(text: str) -> bool:
    """Return whether a text is a cron expression whose times are possible."""
    try:
        cron_values(text)
    except ValueError:
        return False
    return True


def is_zone(text: str) -> bool:
    """Return whether there is such a time zone; on a machine that knows none, any name may be one."""
    return text in _zones() or not _zones()


@functools.cache
def _zones() -> frozenset[str]:
    # These two mean something else, or nothing, at EventBridge Scheduler.
    return frozenset(available_timezones() - {"Factory", "localtime"})


def due_times(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield the times in UTC at which a schedule is due, beginning with the first one after a time.

    A rate counts from 1970 here; EventBridge Scheduler counts from when the schedule was created. A time
    that is skipped when clocks are put forward is not due, and one that is repeated when they are put
    back is due once, as in EventBridge Scheduler.
    https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#daylist-savings-time
    """
    if schedule.rate_minutes:
        seconds = schedule.rate_minutes * 60
        number = int(after.timestamp() // seconds)
        while True:
            number += 1
            yield datetime.fromtimestamp(number * seconds, timezone.utc)
    here = zone(schedule.timezone)
    if schedule.at:
        due = datetime.fromisoformat(schedule.at).replace(tzinfo=here).astimezone(timezone.utc)
        if due > after:
            yield due
        return
    values = cron_values(schedule.cron)
    today = after.astimezone(here).date()
    while True:
        if today.month in values[3] and today.day in values[2] and today.isoweekday() % 7 in values[4]:
            for due in _times_of_day(datetime(today.year, today.month, today.day), values, here):
                if due > after:
                    yield due
        today += timedelta(days=1)


def _times_of_day(day: datetime, values: Sequence[Sequence[int]], here: ZoneInfo) -> Iterator[datetime]:
    for hour in values[1]:
        for minute in values[0]:
            local = day.replace(hour=hour, minute=minute)
            due = local.replace(tzinfo=here).astimezone(timezone.utc)
            if due.astimezone(here).replace(tzinfo=None) == local:
                yield due
