"""`queues`: how full the queues are, and how long the oldest message waits."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import click
from rich.live import Live
from rich.table import Table

from ..contract import Queue
from .shared.metrics import AGE, latest
from .shared.place import Place, place
from .shared.terminal import Command, age, console, finish, live_options, plain, table


@dataclass(frozen=True)
class Depth:
    """How full a queue is; SQS counts approximately."""

    queue: str
    waiting: int
    in_flight: int
    delayed: int
    oldest_seconds: float | None
    """Age of the oldest message, some minutes old; none if CloudWatch knows of none."""
    acceptable_latency_seconds: int
    dead: int

    @property
    def is_late(self) -> bool:
        """Whether the oldest message waits longer than the contract accepts."""
        return (self.oldest_seconds or 0) > self.acceptable_latency_seconds


def depth(place: Place, queue: Queue, oldest_seconds: float | None) -> Depth:
    """Return how full a queue is."""
    name = "ApproximateNumberOfMessages"
    counts = place.attributes(queue, name, f"{name}NotVisible", f"{name}Delayed")
    return Depth(
        queue.name,
        int(counts[name]),
        int(counts[f"{name}NotVisible"]),
        int(counts[f"{name}Delayed"]),
        oldest_seconds,
        queue.acceptable_latency_seconds,
        place.depth(queue, dead=True),
    )


def depths(place: Place) -> list[Depth]:
    """Return how full every queue is."""
    oldest = latest(place, AGE)
    return [depth(place, queue, oldest.get(queue.name)) for queue in place.contract.queues]


def drawn(found: list[Depth], title: str) -> Table:
    """Return a table of the queues."""
    made = table(title=title, title_justify="left", title_style="")
    made.add_column("QUEUE", overflow="fold")
    for heading in ("WAITING", "IN FLIGHT", "DELAYED", "OLDEST", "ACCEPTED", "DEAD"):
        made.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        oldest = "-" if each.oldest_seconds is None else age(each.oldest_seconds)
        made.add_row(
            plain(each.queue),
            f"{each.waiting:,}",
            f"{each.in_flight:,}",
            f"{each.delayed:,}",
            f"[red]{oldest}[/]" if each.is_late else oldest,
            age(each.acceptable_latency_seconds),
            f"[red]{each.dead:,}[/]" if each.dead else "0",
        )
    return made


@click.command(
    name="queues", cls=Command, examples=("queues --environment production", "queues --watch", "queues --json")
)
@click.option("--watch", is_flag=True, help="Redraw it in place until Ctrl-C.")
@click.option("--every", type=click.FloatRange(0.5), default=5, metavar="SECONDS", help="How often; default: 5.")
@live_options
def command(watch: bool, every: float, environment: str, as_json: bool) -> None:
    """Show how full the queues and their dead-letter queues are.

    OLDEST is from CloudWatch, and some minutes old. Exits with 1 if a dead-letter queue is not empty, or a message
    waits longer than acceptable_latency_seconds.
    """
    here = place(environment)
    if watch:
        _watch(here, every, as_json=as_json)
        return
    found = depths(here)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found]))
    else:
        console().print(drawn(found, _title(here)))
    finish(any(each.dead or each.is_late for each in found))


def _watch(here: Place, every: float, *, as_json: bool) -> None:
    """Redraw in place on a terminal; elsewhere print anew each time."""
    to = console()
    try:
        if as_json or not to.is_terminal:
            while True:
                found = depths(here)
                shown = [asdict(each) for each in found]
                if as_json:
                    click.echo(json.dumps({"at": time.time(), "queues": shown}))
                else:
                    to.print(drawn(found, _title(here)))
                time.sleep(every)
        with Live(drawn(depths(here), _title(here)), console=to, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(drawn(depths(here), _title(here)), refresh=True)
    except KeyboardInterrupt:
        return


def _title(here: Place) -> str:
    return f"{here.contract.service} {here.environment}, {time.strftime('%H:%M:%S', time.gmtime())} UTC"
