"""`cost`: estimate requests and dollars per month from the contract and the load; makes no requests."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from ... import service
from ...commands import Number
from ...contract import Contract
from ...cost import read_prices
from ...terminal import Command, console, json_option, plain, table

MAX_TASKS = 10**12
"""Upper limit of tasks per month."""
KIB_PER_REQUEST = 64
"""Payload that SQS bills as one request."""


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


@dataclass(frozen=True)
class Line:
    """One item of the bill."""

    what: str
    formula: str
    count: float
    """Units per month."""
    price: str
    """Name of the unit's price."""


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
    found = [
        Line(
            "idle polls",
            f"{sum(queue.workers_min for queue in contract.queues)} workers x 30 days / "
            f"({contract.wait_time_seconds} s + {contract.polling_interval_seconds:g} s)",
            idle,
            "sqs_request",
        ),
        Line("sent", f"{per_task} {chunks} of 64 KiB / {per_batch} per request", sends, "sqs_request"),
        Line(
            "received",
            f"{per_task} {load.deliveries_per_task:g} deliveries x {chunks} of 64 KiB / {per_receive} per request",
            received * chunks / per_receive,
            "sqs_request",
        ),
        Line("deleted", f"{per_task} at most 1 request", load.tasks, "sqs_request"),
        Line("released", f"{per_task} {load.deliveries_per_task - 1:g} failures", failures, "sqs_request"),
    ]
    for name, price in prices.items():
        if units := price.get("per_result"):
            found.append(Line(price["what"], f"{received:,.0f} deliveries x {units:g}", received * units, name))
    return found


def bill(found: list[Line], prices: Mapping[str, Any]) -> list[tuple[str, float, float, float]]:
    """Return for each price: its name, units used, free units, and dollars per month."""
    made = []
    for name in dict.fromkeys(line.price for line in found):
        used = sum(line.count for line in found if line.price == name)
        free = min(used, prices[name].get("free_per_month", 0))
        made.append((name, used, free, (used - free) * prices[name]["dollars_per_million"] / 1e6))
    return made


@click.command(name="cost", cls=Command, examples=("cost", "cost --tasks-per-month 5000000 --message-kib 80 --batches"))
@click.option("--tasks-per-month", type=click.IntRange(0, MAX_TASKS), default=1_000_000, show_default=True)
@click.option("--message-kib", type=Number(0.1, 1_024), default=1, show_default=True, help="Message size.")
@click.option("--deliveries", type=Number(1, 1_000), default=1, show_default=True, help="Average per task.")
@click.option("--batches", is_flag=True, help="Producers use `batching` or `send_many`.")
@json_option
def command(tasks_per_month: int, message_kib: float, deliveries: float, batches: bool, as_json: bool) -> None:
    """Estimate the monthly cost of requests, with the calculation.

    It does not include workers, alarms, logs and data transfer. It makes no requests, and needs no credentials.
    """
    load = Load(tasks_per_month, message_kib, deliveries, batches)
    contract = service.contract()
    prices = read_prices(contract)
    found = lines(contract, load, prices["prices"])
    due = bill(found, prices["prices"])
    total = sum(dollars for *_, dollars in due)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "dollars_per_month": round(total, 2),
                    "lines": [
                        {"what": line.what, "count": round(line.count), "formula": line.formula} for line in found
                    ],
                    "prices": {"date": prices["date"], "region": prices["region"]},
                }
            )
        )
        return
    made = table()
    made.add_column("PER MONTH", no_wrap=True)
    made.add_column("COUNT", justify="right", no_wrap=True)
    made.add_column("CALCULATION", overflow="fold")
    for line in found:
        made.add_row(plain(line.what), f"{line.count:,.0f}", plain(line.formula))
    console().print(made)
    for name, used, free, dollars in due:
        price = prices["prices"][name]
        less = f" - {free:,.0f} free" if free else ""
        text = f"{price['what']}: ({used:,.0f}{less}) x ${price['dollars_per_million']:g} / million = ${dollars:,.2f}"
        console().print(plain(text))
        console().print(plain(f"  {price['source']}"))
    click.echo(f"${total:,.2f} per month, at prices of {prices['region']} on {prices['date']}")
    click.echo(prices["note"])
