"""`queues`: the depth of the queues."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any, cast

import click
from rich.live import Live
from rich.table import Table

from .. import options, queues
from ..commands import Number
from ..environment import Environment, find
from ..terminal import Command, console, finish, live_options

depths_of_broker = queues.chosen(options.broker())
view = options.load(__package__, options.broker())


@click.command(
    name="queues",
    cls=Command,
    help=f"Show the depth of the queues and their dead-letter queues.\n{view.HELP}",
    examples=("queues --environment production", "queues --watch", "queues --json"),
)
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
@click.option("--every", type=Number(0.5), default=5, metavar="SECONDS", help="Interval of --watch; default: 5.")
@live_options
def command(watch: bool, every: float, environment: str, as_json: bool) -> None:
    """Show the depth of the queues and their dead-letter queues, once or repeatedly."""
    env = find(environment)
    if watch:
        _watch(env, every, as_json=as_json)
        return
    found = depths_of_broker.depths(env)
    if as_json:
        click.echo(json.dumps([asdict(cast(Any, each)) for each in found]))
    else:
        console().print(view.rendered(found, _title(env)))
    finish(not all(each.is_well for each in found))


def _watch(env: Environment, every: float, *, as_json: bool) -> None:
    """Refresh in place on a terminal; otherwise print repeatedly."""
    to = console()
    try:
        if as_json or not to.is_terminal:
            while True:
                found = depths_of_broker.depths(env)
                shown = [asdict(cast(Any, each)) for each in found]
                if as_json:
                    click.echo(json.dumps({"at": time.time(), "queues": shown}))
                else:
                    to.print(view.rendered(found, _title(env)))
                time.sleep(every)
        with Live(_table(env), console=to, auto_refresh=False) as screen:
            while True:
                time.sleep(every)
                screen.update(_table(env), refresh=True)
    except KeyboardInterrupt:
        return


def _table(env: Environment) -> Table:
    table: Table = view.rendered(depths_of_broker.depths(env), _title(env))
    return table


def _title(env: Environment) -> str:
    return f"{env.contract.service} {env.environment}, {time.strftime('%H:%M:%S', time.gmtime())} UTC"
