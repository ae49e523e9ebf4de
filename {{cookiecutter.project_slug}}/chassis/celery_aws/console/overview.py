"""The pages of queues and schedules."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

from flask import Flask, abort, current_app, flash, redirect, render_template, url_for

from .. import attempts, pausing, queues, schedules
from ..charts import polylines
from ..contract import Queue
from .refreshing import refresh_seconds

SAMPLES = 60
"""Depths of each queue that the console keeps, for charts where nothing else has recorded them."""

COLUMNS = {
    "waiting": "waiting",
    "in_flight": "in flight",
    "delayed": "delayed",
    "oldest_seconds": "oldest",
    "acceptable_latency_seconds": "accepted",
    "workers": "workers",
}
"""Headings of the fields of a depth; a broker has some of them."""

AGES = ("oldest_seconds", "acceptable_latency_seconds")


def add_pages(app: Flask) -> None:
    """Add the pages to the application."""
    app.extensions["samples"] = Samples()
    app.add_url_rule("/", "queues", show_queues)
    for name, change in {"pause": pause, "resume": resume}.items():
        app.add_url_rule(f"/queues/<queue>/{name}", name, change, methods=["POST"])
    app.add_url_rule("/schedules", "schedules", show_schedules)


class Samples:
    """How many messages waited each time that somebody looked, by queue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, deque[float | None]] = {}

    def add(self, queue: str, waiting: int | None) -> tuple[float | None, ...]:
        """Add a depth, and return all."""
        with self._lock:
            held = self._held.setdefault(queue, deque(maxlen=SAMPLES))
            held.append(waiting)
            return tuple(held)


def show_queues() -> str:
    """Show the depth of all queues."""
    env = current_app.extensions["env"]
    of_broker = queues.chosen(env.contract.broker)
    found = of_broker.depths(env)
    recorded = of_broker.history(env)
    rows = []
    for each in found:
        row: dict[str, Any] = asdict(cast(Any, each))
        seen = current_app.extensions["samples"].add(row["queue"], row["waiting"])
        values = recorded[row["queue"]].values if row["queue"] in recorded else seen
        known = [value for value in values if value is not None]
        row["paused"] = pausing.described(each.paused) if each.paused else ""
        row |= {"is_well": each.is_well, "lines": polylines(values), "most": max(known, default=0)}
        rows.append(row)
    columns = {name: title for name, title in COLUMNS.items() if rows and name in rows[0]}
    span = "in the last 3 hours" if recorded else "while this page was shown"
    return render_template(
        "queues.html",
        rows=rows,
        columns=columns,
        ages=AGES,
        span=span,
        can_pause=pausing.is_available(env.contract),
        refresh=refresh_seconds(is_live=not recorded),
    )


def find_queue(name: str) -> Queue:
    """Return the queue of a page by its name; the page says if there is none."""
    contract = current_app.extensions["env"].contract
    if name not in (each.name for each in contract.queues):
        abort(404, f"contract.json has no queue {name}.")
    found: Queue = contract.queue(name)
    return found


def pause(queue: str) -> Any:
    """Pause a queue."""
    return _change(queue, pausing.chosen(current_app.extensions["env"].contract.broker).pause)


def resume(queue: str) -> Any:
    """Resume a queue."""
    return _change(queue, pausing.chosen(current_app.extensions["env"].contract.broker).resume)


def _change(queue: str, change: Callable[[Any, Queue], str]) -> Any:
    env = current_app.extensions["env"]
    flash(f"{queue}: {change(env, find_queue(queue))}.")
    return redirect(url_for("queues"), 303)


def show_schedules() -> str:
    """Show when the tasks of schedules are due."""
    env = current_app.extensions["env"]
    rows = [schedules.described(env.contract, schedule) for schedule in env.contract.schedules]
    if env.contract.broker != "rabbitmq" and not attempts.is_local():  # There, a beat sends.
        schedules.add_live(rows, env)
    return render_template("schedules.html", rows=rows)
