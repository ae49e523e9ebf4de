"""`queues`: the depth of the queues, and whether they are paused."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any, cast

import click
from rich.live import Live

from .. import options, pausing, queues
from ..commands import Failure, Number
from ..environment import DEVELOPMENT, Environment, find
from ..terminal import DefaultGroup, Fitting, console, finish, live_options, say

depths_of_broker = queues.chosen(options.broker())
view = options.load(__package__, options.broker())


@click.group(name="queues", cls=DefaultGroup)
def command() -> None:
    """Show the depth of the queues; pause or resume one."""


@command.command(
    "list",
    help=f"Show the depth of the queues and their dead-letter queues.\n{view.HELP}",
    examples=("queues --environment production", "queues --watch", "queues --json"),
)
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
@click.option("--every", type=Number(0.5), default=5, metavar="SECONDS", help="Interval of --watch; default: 5.")
@live_options
def list_(watch: bool, every: float, environment: str, as_json: bool) -> None:
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


@command.command(examples=("queues pause {queue} --environment production",))
@click.argument("queue")
@live_options
def pause(queue: str, environment: str, as_json: bool) -> None:
    """Have workers take no more messages of QUEUE.

    That includes workers that start later. Running tasks go on, and messages wait. Scaling and alarms still count them.
    """
    env = find(environment)
    say(as_json, pausing.chosen(env.contract.broker).pause(env, env.contract.queue(queue)), queue=queue, paused=True)


@command.command(examples=("queues resume {queue} --environment production",))
@click.argument("queue")
@live_options
def resume(queue: str, environment: str, as_json: bool) -> None:
    """Have workers take messages of QUEUE again."""
    env = find(environment)
    say(as_json, pausing.chosen(env.contract.broker).resume(env, env.contract.queue(queue)), queue=queue, paused=False)


@command.command(examples=("queues purge {queue} --yes",))
@click.argument("queue")
@click.option("--yes", is_flag=True, help="Do not prompt.")
@live_options
def purge(queue: str, yes: bool, environment: str, as_json: bool) -> None:
    """Delete all messages that wait in QUEUE, in development only."""
    env = find(environment)
    named = env.contract.queue(queue)
    if environment != DEVELOPMENT:
        raise Failure(
            f"only queues of the environment {DEVELOPMENT} can be purged: those of others hold tasks that somebody "
            f"waits for. Pause the queue instead, or revoke tasks"
        )
    if not yes:
        click.confirm(f"Delete all messages that wait in {env.name(named)}?", abort=True, err=True)
    depths_of_broker.purge(env, named)
    say(as_json, f"all messages that waited in {env.name(named)} are deleted", queue=queue)


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


def _table(env: Environment) -> Fitting:
    table: Fitting = view.rendered(depths_of_broker.depths(env), _title(env))
    return table


def _title(env: Environment) -> str:
    return f"{env.contract.service} {env.environment}, {time.strftime('%H:%M:%S', time.gmtime())} UTC"
