"""`cost`: estimate dollars per month from the environment and the load; makes no requests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from ... import service
from ...commands import Number
from ...cost import Line, dollars_each, read_prices
from ...cost.environment import environment_lines
from ...terminal import Command, console, json_option, plain, table
from .. import environment_cost

MAX_TASKS = 10**12
"""Upper limit of tasks per month."""


def lines(deliveries: float, prices: Mapping[str, Any]) -> list[Line]:
    """Return the items of a month's bill that depend on the number of tasks: Amazon MQ charges none for messages."""
    return [
        Line(
            price["what"],
            f"{deliveries:,.0f} deliveries x {price['per_result']:g} x ${price['dollars_per_million']:g} / million",
            deliveries * price["per_result"],
            name,
            dollars_each(price),
        )
        for name, price in prices.items()
        if "per_result" in price
    ]


@click.command(
    name="cost", cls=Command, examples=("cost", "cost --variables production", "cost --nodes 3 --storage-gb 20")
)
@click.option("--nodes", type=click.Choice(["1", "3"]), help="Broker instances, instead of those of --variables.")
@click.option("--storage-gb", type=Number(0), default=5, show_default=True, help="Of each broker instance.")
@click.option("--tasks-per-month", type=click.IntRange(0, MAX_TASKS), default=1_000_000, show_default=True)
@click.option("--deliveries", type=Number(1, 1_000), default=1, show_default=True, help="Average per task.")
@environment_cost.environment_options
@json_option
def command(
    nodes: str | None,
    storage_gb: float,
    tasks_per_month: int,
    deliveries: float,
    variables: str | None,
    network: str | None,
    own_prices: tuple[str, ...],
    tasks_with_metrics: int,
    as_json: bool,
) -> None:
    """Estimate the monthly cost of an environment.

    It shows the calculation. Workers are counted at their `min`. It makes no requests, and needs no credentials.
    """
    contract = service.contract()
    read = read_prices(contract)
    prices = environment_cost.with_own_prices(read["prices"], own_prices)
    environment = environment_cost.chosen_environment(variables, network, tasks_with_metrics)
    environment = replace(environment, broker_gb=storage_gb, broker_nodes=int(nodes or environment.broker_nodes))
    fixed = environment_lines(contract, environment, prices)
    found = lines(tasks_per_month * deliveries, prices)
    total = environment_cost.total([*found, *fixed])
    if as_json:
        shown = {**_as_json(found, read), "dollars_per_month": round(total, 2)}
        click.echo(json.dumps({**shown, **environment_cost.as_json(fixed, contract)}))
        return
    if found:
        _print(found, prices)
    environment_cost.show(fixed, contract, prices)
    environment_cost.show_total(total, fixed, read)


def _as_json(found: Sequence[Line], prices: Mapping[str, Any]) -> dict[str, Any]:
    lines = [
        {"what": line.what, "count": round(line.count), "formula": line.formula, "dollars": round(line.dollars or 0, 2)}
        for line in found
    ]
    return {
        "lines": lines,
        "prices": {"date": prices["date"], "region": prices["region"]},
    }


def _print(found: Sequence[Line], prices: Mapping[str, Any]) -> None:
    made = table()
    made.add_column("PER MONTH", overflow="fold")
    made.add_column("CALCULATION", overflow="fold")
    made.add_column("DOLLARS", justify="right", no_wrap=True)
    for line in found:
        made.add_row(plain(line.what), plain(line.formula), f"{line.dollars:,.2f}")
    console().print(made)
    for source in dict.fromkeys(prices[line.price]["source"] for line in found):
        click.echo(f"  {source}")
