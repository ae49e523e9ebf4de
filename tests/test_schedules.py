"""When schedules are due, and how EventBridge Scheduler is told."""

from __future__ import annotations

import itertools
import random
from datetime import datetime, timedelta, timezone

import pytest
from celery.schedules import crontab
from conftest import RULES
from test_rules import CRONS, changed, scheduled

SCHEDULES = RULES.schedules
START = datetime(2027, 1, 1, tzinfo=timezone.utc)


def schedule(**fields):
    """Return a schedule of a contract that breaks no rule."""
    contract = changed(scheduled(**fields))
    assert RULES.problems(contract) == []
    return RULES.parse(contract).schedules[0]


def due(count, after=START, **fields):
    found = itertools.islice(SCHEDULES.due_times(schedule(**fields), after), count)
    return [time.strftime("%m-%d %H:%M") for time in found]


@pytest.mark.parametrize("text", [*(holds for holds, _ in CRONS), "*/7 */5 */3 */2 *", "5/10 1-23/4 * feb-oct fri,0"])
def test_values_of_a_cron_expression_are_those_of_celery(text):
    judge = crontab.from_string(text.replace("5/10", "5-59/10").replace("* 7", "* 0"))
    expected = [judge.minute, judge.hour, judge.day_of_month, judge.month_of_year, judge.day_of_week]
    assert SCHEDULES.cron_values(text) == [sorted(values) for values in expected]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("* * * * *", "cron(* * * * ? *)"),
        ("30 6 * * mon-fri", "cron(30 6 ? * 2,3,4,5,6 *)"),
        ("0 0 * * fri-7", "cron(0 0 ? * 1,6,7 *)"),
        ("*/20 8-18/5 1,15 jan *", "cron(0,20,40 8,13,18 1,15 1 ? *)"),
    ],
)
def test_expression_of_a_cron_has_six_fields_and_days_from_one(cron, expected):
    assert SCHEDULES.expression_of(schedule(cron=cron)) == expected


def test_expression_of_a_rate_and_of_a_date():
    assert SCHEDULES.expression_of(schedule(cron=None, rate_minutes=1)) == "rate(1 minute)"
    assert SCHEDULES.expression_of(schedule(cron=None, rate_minutes=90)) == "rate(90 minutes)"
    assert SCHEDULES.expression_of(schedule(cron=None, at="2027-01-31T06:30:00")) == "at(2027-01-31T06:30:00)"


def test_times_of_a_cron_are_in_its_time_zone():
    assert due(3, cron="30 6 * * mon", timezone="Asia/Tokyo") == ["01-03 21:30", "01-10 21:30", "01-17 21:30"]
    assert due(2, cron="0 0 29 2 *") == ["02-29 00:00"] * 2


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (datetime(2027, 3, 26, 12, tzinfo=timezone.utc), ["03-27 01:30", "03-29 00:30"]),  # No 2:30 on the 28th.
        (datetime(2027, 10, 30, 12, tzinfo=timezone.utc), ["10-31 00:30", "11-01 01:30"]),  # Twice 2:30 on the 31st.
    ],
)
def test_time_when_clocks_change_then_is_skipped_or_due_once(before, expected):
    assert due(2, before, cron="30 2 * * *", timezone="Europe/Berlin") == expected


def test_times_of_a_rate_and_of_a_date():
    after = START + timedelta(minutes=7)
    assert due(2, after, cron=None, rate_minutes=5) == ["01-01 00:10", "01-01 00:15"]
    assert due(2, after, cron=None, at="2027-01-31T06:30:00", timezone="America/New_York") == ["01-31 11:30"]
    assert due(2, START.replace(month=2), cron=None, at="2027-01-31T06:30:00") == []


def test_times_of_a_cron_are_those_that_celery_finds():
    chance = random.Random(7)
    for _ in range(40):
        minute, hour = f"*/{chance.randint(1, 59)}", f"{chance.randint(0, 12)}-{chance.randint(12, 23)}"
        day, week = chance.choice([("*", "mon,thu"), (f"*/{chance.randint(1, 28)}", "*"), ("*", "*")])
        text = f"{minute} {hour} {day} {chance.randint(1, 6)}-12/2 {week}"
        now = START + timedelta(minutes=chance.randint(0, 500_000))
        judge = crontab.from_string(text)
        judge.nowfun = lambda: now  # noqa: B023 - called at once
        found = next(SCHEDULES.due_times(schedule(cron=text), now))
        assert found == now + judge.remaining_estimate(now), (text, now)
