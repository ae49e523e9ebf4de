"""`queues`: how full the queues are."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any, cast

import click
from rich.live import Live

from .. import options, queues
from ..commands import Number
from ..environment import Environment, find
from ..terminal import Command, console, finish, live_options

live = queues.chosen(options.broker())


@click.command(
    name="queues",
    cls=Command,
    help=f"Show how full the queues and their dead-letter queues are.\n{live.HELP}",
    examples=("queues --environment production", "queues --watch", "queues --json"),
)
@click.option("--watch", is_flag=True, help="Redraw it in place until Ctrl-C.")
@click.option("--every", type=Number(0.5), default=5, metavar="SECONDS", help="How often; default: 5.")
@live_options
def command(watch: bool, every: float, environment: str, as_json: bool) -> None:
    """Show how full the queues and their dead-letter queues are, once or again and again."""
    here = find(environment)
    if watch:
        _watch(here, every, as_json=as_json)
        return
    found = live.depths(here)
    if as_json:
        click.echo(json.dumps([asdict(cast(Any, each)) for each in found]))
    else:
        console().print(live.drawn(found, _title(here)))
    finish(not all(each.is_well for each in found))


def _watch(here: Environment, every: float, *, as_json: bool) -> None:
    """Redraw in place on a terminal; elsewhere print anew each time."""
    to = console()
    try:
        if as_json or not to.is_terminal:
            while True:
                found = live.depths(here)
                shown = [asdict(cast(Any, each)) for each in found]
                if as_json:
                    click.echo(json.dumps({"at": time.time(), "queues": shown}))
                else:
                    to.print(live.drawn(found, _title(here)))
                time.sleep(every)
        with Live(live.drawn(live.depths(here), _title(here)), console=to, auto_refresh=False) as screen:
            while True:
                time.sleep(every)
                screen.update(live.drawn(live.depths(here), _title(here)), refresh=True)
    except KeyboardInterrupt:
        return


def _title(here: Environment) -> str:
    return f"{here.contract.service} {here.environment}, {time.strftime('%H:%M:%S', time.gmtime())} UTC"
