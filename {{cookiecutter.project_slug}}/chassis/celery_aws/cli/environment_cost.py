"""The part of `cost` that is the same for every broker: the environment's options, and its part of the bill."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from ..commands import Failure
from ..contract import Contract
from ..cost import Line, read_resources
from ..cost.environment import NETWORKS, Environment, read_environment
from ..terminal import console, plain, table

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
VARIABLES = Path("terraform") / "environments"
"""Where the environments' variables are, from the project's folder."""


MAX_TASKS_WITH_METRICS = 10_000


def environment_options(command: Decorated) -> Decorated:
    """Add the options that say what the environment is."""
    for option in (
        click.option(
            "--tasks-with-metrics",
            type=click.IntRange(0, MAX_TASKS_WITH_METRICS),
            default=Environment.tasks,
            show_default=True,
            help="Tasks that run every hour, with `task_metrics`.",
        ),
        click.option(
            "--price",
            "own_prices",
            multiple=True,
            metavar="NAME=DOLLARS",
            help="Price of your region or size; names: --json.",
        ),
        click.option("--network", type=click.Choice(NETWORKS), help="Instead of that in the file of --variables."),
        click.option(
            "--variables", metavar="ENVIRONMENT", help=f"Read {VARIABLES}/ENVIRONMENT.tfvars; else the defaults."
        ),
    ):
        command = option(command)
    return command


def chosen_environment(variables: str | None, network: str | None, tasks: int) -> Environment:
    """Return what the options say.

    Raises:
        Failure: the environment has no file of variables.
    """
    try:
        environment = read_environment(variables, VARIABLES) if variables else Environment()
    except OSError as error:
        raise Failure(f"{error.filename} cannot be read: {error.strerror}; run this in the project's folder") from error
    return replace(environment, network=network or environment.network, tasks=tasks)


def with_own_prices(prices: Mapping[str, Any], own_prices: Sequence[str]) -> dict[str, Any]:
    """Return the prices with those of the command line.

    Raises:
        Failure: a price has no such name, or is no number.
    """
    changed = dict(prices)
    for given in own_prices:
        name, _, dollars = given.partition("=")
        own = sorted(name for name, price in prices.items() if "dollars_per_million" not in price)
        if name not in own:
            known = ", ".join(own)
            raise Failure(f"no price {name!r}; names: {known}")
        try:
            kept = {key: value for key, value in prices[name].items() if key != "seen"}
            changed[name] = {**kept, "dollars": float(dollars)}
        except ValueError:
            raise Failure(f"{given!r} is not NAME=DOLLARS") from None
        if not 0 <= changed[name]["dollars"] < float("inf"):
            raise Failure(f"{given!r} is not a price")
    return changed


def total(lines: Sequence[Line]) -> float:
    """Return the sum of the known prices, in dollars per month."""
    return sum(line.dollars or 0 for line in lines)


def as_json(lines: Sequence[Line], contract: Contract) -> dict[str, Any]:
    """Return the environment's part of the bill, what has no known price, and what is left out."""
    return {
        "environment": [
            {
                "what": line.what,
                "formula": line.formula,
                "price": line.price,
                "dollars": None if line.dollars is None else round(line.dollars, 2),
            }
            for line in lines
        ],
        "without_price": list(dict.fromkeys(line.price for line in lines if line.dollars is None)),
        "left_out": left_out(contract),
    }


def left_out(contract: Contract) -> list[str]:
    """Return what the bill does not include."""
    resources = read_resources()
    only, names = resources["only"], contract.option_names
    return [reason for reason in resources["left_out"] if reason not in only or not names.isdisjoint(only[reason])]


def show(lines: Sequence[Line], contract: Contract, prices: Mapping[str, Any]) -> None:
    """Print the environment's part of the bill."""
    made = table()
    made.add_column("ENVIRONMENT", overflow="fold")
    made.add_column("CALCULATION", overflow="fold")
    made.add_column("DOLLARS", justify="right", no_wrap=True)
    for line in lines:
        made.add_row(plain(line.what), plain(line.formula), "?" if line.dollars is None else f"{line.dollars:,.2f}")
    console().print(made)
    for source in dict.fromkeys(prices[line.price]["source"] for line in lines):
        click.echo(f"  {source}")
    used = dict.fromkeys(line.price for line in lines)
    without = dict.fromkeys(line.price for line in lines if line.dollars is None)
    if seen := [name for name in used if "seen" in prices[name] and name not in without]:
        console().print(plain(f"From price tables of third parties; check the pages above: {', '.join(seen)}."))
    for name in without:
        console().print(plain(f"Not in the sum: {name}, as its price is not known. Set it: --price {name}=DOLLARS"))
    console().print(plain(f"Not included: {'; '.join(left_out(contract))}."))


def show_total(dollars: float, lines: Sequence[Line], read: Mapping[str, Any]) -> None:
    """Print the sum, which is a minimum if a price is not known, and of when and where the prices are."""
    at_least = "At least " if any(line.dollars is None for line in lines) else ""
    click.echo(f"{at_least}${dollars:,.2f} per month, at prices of {read['region']} on {read['date']} or later")
    click.echo(read["note"])
