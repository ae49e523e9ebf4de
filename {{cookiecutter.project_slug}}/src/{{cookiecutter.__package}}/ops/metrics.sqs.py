"""`metrics`: the last hours of the queues, drawn."""

from __future__ import annotations

import html
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from ..cli import Failure
from ..contract import Queue
from .shared.metrics import AGE, DEPTH, DONE, SENT, Series, read
from .shared.place import place
from .shared.terminal import Command, console, live_options, plain, table

TITLES = {DEPTH: "waiting", AGE: "oldest, s", SENT: "sent", DONE: "done"}
"""What each metric is called here; the last two are counts per period."""
POINTS = 40
"""Values of a curve, at the most: what fits a row of 80 columns."""
BARS = "▁▂▃▄▅▆▇█"


def period_seconds(hours: float) -> int:
    """Return the time that one value stands for, so that no curve has more than `POINTS`; a multiple of 60."""
    return max(60, math.ceil(hours * 3600 / POINTS / 60) * 60)


def sparkline(values: Sequence[float | None]) -> str:
    """Draw values as a line of bars from 0 to the highest; a dot where there is none."""
    top = max((value for value in values if value is not None), default=0) or 1
    return "".join("·" if value is None else BARS[round(value / top * (len(BARS) - 1))] for value in values)


def page(title: str, series: dict[tuple[str, str], Series]) -> str:
    """Return an HTML page with all curves, which needs nothing from elsewhere."""
    sections = []
    for queue in dict.fromkeys(queue for queue, _ in series):
        figures = [_figure(called, series[queue, metric.name]) for metric, called in TITLES.items()]
        sections.append(f"<h2>{html.escape(queue)}</h2>\n" + "\n".join(figures))
    style = (
        "body{font:14px sans-serif;margin:2em;max-width:60em}figure{margin:1em 0}"
        "svg{width:100%;height:6em;background:#f4f4f4}polyline{fill:none;stroke:#06c;stroke-width:1.5;stroke-linecap:round;"
        "vector-effect:non-scaling-stroke}"
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{style}</style>\n<h1>{html.escape(title)}</h1>\n" + "\n".join(sections) + "\n</html>\n"
    )


def _figure(called: str, series: Series) -> str:
    """Draw one curve; it is broken where there is no value."""
    known = [value for value in series.values if value is not None]
    top = max(known, default=0)
    width = max(1, len(series.values) - 1)
    pieces: list[list[str]] = [[]]
    for index, value in enumerate(series.values):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{index / width * 1000:.1f},{100 - value / (top or 1) * 95:.1f}")
    # A single value is a line from itself to itself, or it would not be drawn.
    drawn = [" ".join(piece * 2 if len(piece) == 1 else piece) for piece in pieces if piece]
    lines = "".join(f'<polyline points="{points}"/>' for points in drawn)
    ends = (series.starts_at_seconds, series.starts_at_seconds + len(series.values) * series.period_seconds)
    first, last = (time.strftime("%F %H:%M", time.gmtime(at)) for at in ends)
    last_value = f"{known[-1]:g}" if known else "no data"
    caption = f"{called}: highest {top:g}, last {last_value}; {first} to {last} UTC, {series.period_seconds} s a point"
    return (
        f"<figure><figcaption>{html.escape(caption)}</figcaption>"
        f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="{html.escape(caption)}">'
        f"{lines}</svg></figure>"
    )


@click.command(name="metrics", cls=Command, examples=("metrics", "metrics high --hours 24 --html metrics.html"))
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@click.option("--hours", type=click.FloatRange(0.1, 336), default=3, show_default=True, help="How far back.")
@click.option("--html", "file", type=click.Path(dir_okay=False, writable=True), help="Write a page with curves, too.")
@live_options
def command(queues: tuple[str, ...], hours: float, file: str | None, environment: str, as_json: bool) -> None:
    """Draw depth, age and throughput of the last hours, of each QUEUE or of all.

    They come from CloudWatch, which is some minutes late.
    """
    here = place(environment)
    chosen: Sequence[Queue] = [here.contract.queue(name) for name in queues] or here.contract.queues
    period = period_seconds(hours)
    series = read(here, chosen, list(TITLES), round(hours * 3600), period)
    if file:
        try:
            Path(file).write_text(page(f"{here.contract.service} {environment}", series), encoding="utf-8")
        except OSError as error:
            raise Failure(f"{file} cannot be written: {error.strerror}") from None
    if as_json:
        click.echo(json.dumps([{"queue": queue, "metric": name, **asdict(of)} for (queue, name), of in series.items()]))
        return
    made = table(title=f"last {hours:g} h, {period} s a bar", title_justify="left", title_style="")
    made.add_column("QUEUE", width=14, no_wrap=True, overflow="ellipsis")
    made.add_column("", width=9, no_wrap=True)
    made.add_column("", width=POINTS, no_wrap=True)
    made.add_column("LAST", justify="right", no_wrap=True)
    made.add_column("MOST", justify="right", no_wrap=True)
    for queue in chosen:
        for index, (metric, called) in enumerate(TITLES.items()):
            _add_row(made, "" if index else queue.name, called, series[queue.name, metric.name])
    console().print(made)
    if file:
        click.echo(f"curves written to {file}")


def _add_row(made: Table, name: str, called: str, series: Series) -> None:
    known = [value for value in series.values if value is not None]
    last, most = (f"{known[-1]:,.0f}", f"{max(known):,.0f}") if known else ("-", "-")
    made.add_row(plain(name), called, sparkline(series.values), last, most)
