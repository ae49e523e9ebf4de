"""Charts of metrics, on a terminal and as an HTML page."""

from __future__ import annotations

import html
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from .cloudwatch import Metric, Series
from .commands import Failure
from .terminal import console, plain, table

POINTS = 40
"""Maximum number of values per chart; it fits a row of 80 columns."""
BARS = "▁▂▃▄▅▆▇█"


def period_seconds(hours: float) -> int:
    """Return the period of one value in seconds, a multiple of 60, for at most `POINTS` values."""
    return max(60, math.ceil(hours * 3600 / POINTS / 60) * 60)


def sparkline(values: Sequence[float | None]) -> str:
    """Draw values as a line of bars from 0 to the maximum, with a dot for no data."""
    top = max((value for value in values if value is not None), default=0) or 1
    return "".join("·" if value is None else BARS[round(value / top * (len(BARS) - 1))] for value in values)


def page(title: str, series: dict[tuple[str, str], Series], titles: Mapping[Metric, str]) -> str:
    """Return a self-contained HTML page with all charts."""
    sections = []
    for subject in dict.fromkeys(subject for subject, _ in series):
        figures = [_figure(called, series[subject, metric.name]) for metric, called in titles.items()]
        sections.append(f"<h2>{html.escape(subject)}</h2>\n" + "\n".join(figures))
    style = (
        "body{font:14px sans-serif;margin:2em;max-width:60em}figure{margin:1em 0}"
        "svg{width:100%;height:6em;background:#f4f4f4}polyline{fill:none;stroke:#06c;stroke-width:1.5;stroke-linecap:round;"
        "vector-effect:non-scaling-stroke}"
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{style}</style>\n<h1>{html.escape(title)}</h1>\n" + "\n".join(sections) + "\n</html>\n"
    )


def polylines(values: Sequence[float | None]) -> list[str]:
    """Return the points of a chart of 1000 by 100, for SVG: a line for each part between gaps."""
    top = max((value for value in values if value is not None), default=0)
    width = max(1, len(values) - 1)
    pieces: list[list[str]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{index / width * 1000:.1f},{100 - value / (top or 1) * 95:.1f}")
    # A line needs two points, so a single value is repeated.
    return [" ".join(piece * 2 if len(piece) == 1 else piece) for piece in pieces if piece]


def _figure(called: str, series: Series) -> str:
    """Draw one chart, with gaps where there is no data."""
    known = [value for value in series.values if value is not None]
    top = max(known, default=0)
    lines = "".join(f'<polyline points="{points}"/>' for points in polylines(series.values))
    ends = (series.starts_at_seconds, series.starts_at_seconds + len(series.values) * series.period_seconds)
    first, last = (time.strftime("%F %H:%M", time.gmtime(at)) for at in ends)
    last_value = f"{known[-1]:g}" if known else "no data"
    caption = f"{called}: max {top:g}, last {last_value}; {first} to {last} UTC, {series.period_seconds} s per point"
    return (
        f"<figure><figcaption>{html.escape(caption)}</figcaption>"
        f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="{html.escape(caption)}">'
        f"{lines}</svg></figure>"
    )


def show(
    title: str,
    about: str,
    series: dict[tuple[str, str], Series],
    titles: Mapping[Metric, str],
    hours: float,
    file: str | None,
    *,
    as_json: bool,
) -> None:
    """Print all charts.

    Args:
        title: title of the HTML page.
        about: heading of the subjects' column, such as `queue`.
        series: the values, by subject and metric name.
        titles: display name of each metric.
        hours: time span of the charts.
        file: path of an HTML page to write as well.
        as_json: print JSON instead.
    """
    if file:
        try:
            Path(file).write_text(page(title, series, titles), encoding="utf-8")
        except OSError as error:
            raise Failure(f"{file} cannot be written: {error.strerror}") from None
    if as_json:
        click.echo(json.dumps([{about: name, "metric": metric, **asdict(of)} for (name, metric), of in series.items()]))
        return
    _print(about, series, titles, hours)
    if file:
        click.echo(f"charts written to {file}")


def _print(about: str, series: dict[tuple[str, str], Series], titles: Mapping[Metric, str], hours: float) -> None:
    """Print a row for each subject and metric."""
    period = next(iter(series.values())).period_seconds
    made = table(title=f"last {hours:g} h, {period} s per bar", title_justify="left", title_style="")
    made.add_column(about.upper(), width=14, no_wrap=True, overflow="ellipsis")
    made.add_column("", width=9, no_wrap=True)
    made.add_column("", width=POINTS, no_wrap=True)
    made.add_column("LAST", justify="right", no_wrap=True)
    made.add_column("MAX", justify="right", no_wrap=True)
    for subject in dict.fromkeys(subject for subject, _ in series):
        for index, (metric, called) in enumerate(titles.items()):
            values = series[subject, metric.name].values
            known = [value for value in values if value is not None]
            last, most = (f"{known[-1]:,.0f}", f"{max(known):,.0f}") if known else ("-", "-")
            made.add_row(plain("" if index else subject), called, sparkline(values), last, most)
    console().print(made)
