"""`cost`: estimate dollars per month from the size of the broker and the load; makes no requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from ... import service
from ...commands import Number
from ...cost import read_prices
from ...terminal import Command, console, json_option, plain, table

HOURS_PER_MONTH = 730
MILLION = 1_000_000
MAX_TASKS = 10**12
"""Upper limit of tasks per month."""


@dataclass(frozen=True)
class Load:
    """The broker, and the tasks per month."""

    nodes: int
    """Instances of the broker: one, or a cluster of three."""
    storage_gb: float
    """Storage of each instance."""
    tasks: int
    deliveries_per_task: float
    """More than 1 if tasks are retried."""


@dataclass(frozen=True)
class Line:
    """One item of the bill."""

    what: str
    formula: str
    count: float
    """Units per month."""
    dollars_each: float
    source: str

    @property
    def dollars(self) -> float:
        """Cost per month."""
        return self.count * self.dollars_each


def lines(load: Load, dollars_per_hour: float, prices: Mapping[str, Any]) -> list[Line]:
    """Return the items of a month's bill; Amazon MQ does not charge for messages."""
    hour, storage = prices["broker_hour"], prices["broker_storage"]
    found = [
        Line(
            hour["what"],
            f"{load.nodes} x {HOURS_PER_MONTH} hours x ${dollars_per_hour:g}",
            load.nodes * HOURS_PER_MONTH,
            dollars_per_hour,
            hour["source"],
        ),
        Line(
            storage["what"],
            f"{load.nodes} x {load.storage_gb:g} GB x ${storage['dollars']:g}",
            load.nodes * load.storage_gb,
            storage["dollars"],
            storage["source"],
        ),
    ]
    delivered = load.tasks * load.deliveries_per_task
    for price in prices.values():
        if not (units := price.get("per_result")):
            continue
        found.append(
            Line(
                price["what"],
                f"{delivered:,.0f} deliveries x {units:g} x ${price['dollars_per_million']:g} / million",
                delivered * units,
                price["dollars_per_million"] / MILLION,
                price["source"],
            )
        )
    return found


@click.command(
    name="cost", cls=Command, examples=("cost", "cost --nodes 3 --storage-gb 20", "cost --tasks-per-month 5000000")
)
@click.option("--nodes", type=click.Choice(["1", "3"]), default="1", show_default=True, help="Broker instances.")
@click.option("--dollars-per-hour", type=Number(0), metavar="PRICE", help="Of an instance of another size.")
@click.option("--storage-gb", type=Number(0), default=5, show_default=True, help="Of each instance.")
@click.option("--tasks-per-month", type=click.IntRange(0, MAX_TASKS), default=1_000_000, show_default=True)
@click.option("--deliveries", type=Number(1, 1_000), default=1, show_default=True, help="Average per task.")
@json_option
def command(
    nodes: str,
    dollars_per_hour: float | None,
    storage_gb: float,
    tasks_per_month: int,
    deliveries: float,
    as_json: bool,
) -> None:
    """Estimate the monthly cost of the broker and the results, with the calculation.

    It does not include workers, alarms, logs and data transfer. It makes no requests, and needs no credentials.
    """
    prices = read_prices(service.contract())
    hour = prices["prices"]["broker_hour"]
    each = hour["dollars"] if dollars_per_hour is None else dollars_per_hour
    found = lines(Load(int(nodes), storage_gb, tasks_per_month, deliveries), each, prices["prices"])
    total = sum(line.dollars for line in found)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "dollars_per_month": round(total, 2),
                    "lines": [
                        {
                            "what": line.what,
                            "count": round(line.count),
                            "formula": line.formula,
                            "dollars": round(line.dollars, 2),
                        }
                        for line in found
                    ],
                    "prices": {"date": prices["date"], "region": prices["region"]},
                }
            )
        )
        return
    made = table()
    made.add_column("PER MONTH", overflow="fold")
    made.add_column("CALCULATION", overflow="fold")
    made.add_column("DOLLARS", justify="right", no_wrap=True)
    for line in found:
        made.add_row(plain(line.what), plain(line.formula), f"{line.dollars:,.2f}")
    console().print(made)
    if dollars_per_hour is None:
        click.echo(f"The hourly price is for {hour['instance']}; set another one with --dollars-per-hour.")
    for source in dict.fromkeys(line.source for line in found):
        click.echo(source)
    for price in prices["prices"].values():
        if "seen" in price:
            console().print(plain(f"Price of {price['what']}: {price['seen']}."))
    click.echo(f"${total:,.2f} per month, at prices of {prices['region']} on {prices['date']}")
    click.echo(prices["note"])
