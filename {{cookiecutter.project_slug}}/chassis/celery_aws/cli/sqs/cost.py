"""`cost`: estimate requests and dollars per month from the contract and the load; makes no requests."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import click

from ... import service
from ...commands import Number
from ...contract import Contract, Schedule
from ...contract.model import CONTROL_POLL_SECONDS, MONTH_SECONDS
from ...contract.schedules import due_times
from ...cost import Line, dollars_each, read_prices
from ...cost.environment import environment_lines
from ...durations import counted
from ...terminal import Command, console, json_option, plain, table
from .. import environment_cost

MAX_TASKS = 10**12
"""Upper limit of tasks per month."""
KIB_PER_REQUEST = 64
"""Payload that SQS bills as one request."""
READ_UNITS_PER_POLL = 0.5
"""Of the control table, by an eventually consistent query of up to 4 KB."""


@dataclass(frozen=True)
class Load:
    """The tasks per month."""

    tasks: int
    message_kib: float
    """Size of a message."""
    deliveries_per_task: float
    """More than 1 if tasks are retried."""
    sent_in_batches: bool
    """Whether producers use `batching` or `send_many`."""
    long_delays: int = 0
    """Tasks that a one-time schedule delays."""


def lines(contract: Contract, load: Load, prices: Mapping[str, Any]) -> list[Line]:
    """Return the items of a month's bill, including the free tier.

    Idle polls are those of the minimum number of workers.
    """
    chunks = math.ceil(load.message_kib / KIB_PER_REQUEST)
    fitting = max(1, min(10, int(KIB_PER_REQUEST / load.message_kib)))
    per_batch = fitting if load.sent_in_batches else 1
    sends = load.tasks * chunks / per_batch
    received = load.tasks * load.deliveries_per_task
    # A worker receives as many messages as it has room for: one, if it prefetches none.
    per_receive = min(fitting, *(contract.messages_per_poll(queue) for queue in contract.queues))
    failures = load.tasks * (load.deliveries_per_task - 1)
    idle = contract.idle_requests_per_month
    per_task = f"{load.tasks:,} tasks x"
    request = dollars_each(prices["sqs_request"])
    found = [
        Line(
            "idle polls",
            f"{sum(worker.min * len(worker.queues) for worker in contract.workers)} long polls x 30 days / "
            f"({contract.wait_time_seconds} s + {contract.polling_interval_seconds:g} s)",
            idle,
            "sqs_request",
            request,
        ),
        Line("sent", f"{per_task} {chunks} of 64 KiB / {per_batch} per request", sends, "sqs_request", request),
        Line(
            "received",
            f"{per_task} {load.deliveries_per_task:g} deliveries x {chunks} of 64 KiB / {per_receive} per request",
            received * chunks / per_receive,
            "sqs_request",
            request,
        ),
        Line("deleted", f"{per_task} at most 1 request", load.tasks, "sqs_request", request),
        Line("released", f"{per_task} {load.deliveries_per_task - 1:g} failures", failures, "sqs_request", request),
    ]
    if contract.uses_scheduler:
        periodic = sum(times_per_month(schedule) for schedule in contract.schedules)
        formula = f"{periodic:,} of schedules + {load.long_delays:,} long delays"
        price = dollars_each(prices["scheduled_message"])
        found.append(Line("sent by schedules", formula, periodic + load.long_delays, "scheduled_message", price))
    if contract.remote_control:
        least = sum(worker.min for worker in contract.workers)
        formula = f"{counted(least, 'worker')} x 30 days / {CONTROL_POLL_SECONDS} s x {READ_UNITS_PER_POLL:g} units"
        units = least * MONTH_SECONDS / CONTROL_POLL_SECONDS * READ_UNITS_PER_POLL
        found.append(Line("remote control", formula, units, "control_read", dollars_each(prices["control_read"])))
    for name, price in prices.items():
        if units := price.get("per_result"):
            formula = f"{received:,.0f} deliveries x {units:g}"
            found.append(Line(price["what"], formula, received * units, name, dollars_each(price)))
    return found


def times_per_month(schedule: Schedule) -> int:
    """Return how often a schedule is due in 30 days."""
    begin = datetime(2027, 1, 1, tzinfo=timezone.utc)
    if not schedule.enabled or schedule.at:
        return int(schedule.enabled)
    end = begin + timedelta(seconds=MONTH_SECONDS)
    return sum(1 for _ in itertools.takewhile(lambda due: due <= end, due_times(schedule, begin)))


def bill(found: list[Line], prices: Mapping[str, Any]) -> list[tuple[str, float, float, float]]:
    """Return for each price: its name, units used, free units, and dollars per month."""
    made = []
    for name in dict.fromkeys(line.price for line in found):
        used = sum(line.count for line in found if line.price == name)
        free = min(used, prices[name].get("free_per_month", 0))
        made.append((name, used, free, (used - free) * prices[name]["dollars_per_million"] / 1e6))
    return made


@click.command(
    name="cost", cls=Command, examples=("cost", "cost --variables staging", "cost --tasks-per-month 5000000 --batches")
)
@click.option("--tasks-per-month", type=click.IntRange(0, MAX_TASKS), default=1_000_000, show_default=True)
@click.option("--message-kib", type=Number(0.1, 1_024), default=1, show_default=True, help="Message size.")
@click.option("--deliveries", type=Number(1, 1_000), default=1, show_default=True, help="Average per task.")
@click.option("--long-delays", type=click.IntRange(0, MAX_TASKS), default=0, help="Tasks delayed by a schedule.")
@click.option("--batches", is_flag=True, help="Producers use `batching` or `send_many`.")
@environment_cost.environment_options
@json_option
def command(
    tasks_per_month: int,
    message_kib: float,
    deliveries: float,
    long_delays: int,
    batches: bool,
    variables: str | None,
    network: str | None,
    own_prices: tuple[str, ...],
    tasks_with_metrics: int,
    as_json: bool,
) -> None:
    """Estimate the monthly cost of an environment.

    It shows the calculation, also for requests. Workers are counted at their `min`. It makes no requests, and
    needs no credentials.
    """
    load = Load(tasks_per_month, message_kib, deliveries, batches, long_delays)
    contract = service.contract()
    read = read_prices(contract)
    prices = environment_cost.with_own_prices(read["prices"], own_prices)
    environment = environment_cost.chosen_environment(variables, network, tasks_with_metrics)
    fixed = environment_lines(contract, environment, prices)
    found = lines(contract, load, prices)
    due = bill(found, prices)
    total = sum(dollars for *_, dollars in due) + environment_cost.total(fixed)
    if as_json:
        shown = {
            "dollars_per_month": round(total, 2),
            "lines": [{"what": line.what, "count": round(line.count), "formula": line.formula} for line in found],
            "prices": {"date": read["date"], "region": read["region"]},
        }
        click.echo(json.dumps({**shown, **environment_cost.as_json(fixed, contract)}))
        return
    _print(found, due, prices)
    environment_cost.show(fixed, contract, prices)
    environment_cost.show_total(total, fixed, read)


def _print(found: list[Line], due: list[tuple[str, float, float, float]], prices: Mapping[str, Any]) -> None:
    made = table()
    made.add_column("PER MONTH", no_wrap=True)
    made.add_column("COUNT", justify="right", no_wrap=True)
    made.add_column("CALCULATION", overflow="fold")
    for line in found:
        made.add_row(plain(line.what), f"{line.count:,.0f}", plain(line.formula))
    console().print(made)
    for name, used, free, dollars in due:
        price = prices[name]
        less = f" - {free:,.0f} free" if free else ""
        text = f"{price['what']}: ({used:,.0f}{less}) x ${price['dollars_per_million']:g} / million = ${dollars:,.2f}"
        console().print(plain(text))
        console().print(plain(f"  {price['source']}"))
