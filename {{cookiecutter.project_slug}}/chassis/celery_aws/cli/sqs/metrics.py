"""`metrics`: charts of the queues."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ...charts import period_seconds, show
from ...commands import Number
from ...contract import Queue
from ...environment import find
from ...queues.sqs.measured import AGE, DEPTH, DONE, SENT, read
from ...terminal import Command, live_options

TITLES = {DEPTH: "waiting", AGE: "oldest, s", SENT: "sent", DONE: "done"}
"""Display name of each metric; the last two are counts per period."""


@click.command(name="metrics", cls=Command, examples=("metrics", "metrics {queue} --hours 24 --html metrics.html"))
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@click.option("--hours", type=Number(0.1, 336), default=3, show_default=True, help="Time span.")
@click.option("--html", "file", type=click.Path(dir_okay=False, writable=True), help="Also write an HTML page.")
@live_options
def command(queues: tuple[str, ...], hours: float, file: str | None, environment: str, as_json: bool) -> None:
    """Show charts of depth, age and throughput of queues.

    The data is from CloudWatch, and some minutes old.
    """
    env = find(environment)
    chosen: Sequence[Queue] = [env.contract.queue(name) for name in queues] or env.contract.queues
    series = read(env, chosen, list(TITLES), round(hours * 3600), period_seconds(hours))
    show(f"{env.contract.service} {environment}", "queue", series, TITLES, hours, file, as_json=as_json)
