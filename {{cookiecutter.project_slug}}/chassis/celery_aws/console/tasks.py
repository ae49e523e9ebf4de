"""The pages of recent attempts of tasks, and of the log lines of one task."""

from __future__ import annotations

from flask import Flask, current_app, render_template, request

from .. import attempts
from .refreshing import refresh_seconds

SPANS = (1, 3, 24, 168)
"""Time spans to choose from, in hours."""

MOST_ATTEMPTS = 200


def add_pages(app: Flask) -> None:
    """Add the pages to the application."""
    app.add_url_rule("/tasks", "tasks", show_tasks)
    app.add_url_rule("/tasks/lines", "lines", show_lines)


def show_tasks() -> str:
    """Show recent attempts."""
    source = attempts.find(current_app.extensions["env"])
    task, outcome = request.args.get("task", ""), request.args.get("outcome", "")
    return render_template(
        "tasks.html",
        rows=source.recent(_hours(), MOST_ATTEMPTS, task, outcome),
        task=task,
        outcome=outcome,
        hours=_hours(),
        spans=SPANS,
        is_live=source.is_live,
        refresh=refresh_seconds(is_live=source.is_live),
    )


def show_lines() -> str:
    """Show the log lines of a task."""
    task_id, hours = request.args.get("id", ""), _hours()
    source = attempts.find(current_app.extensions["env"])
    lines = source.lines(task_id, hours)
    return render_template(
        "lines.html", lines=lines, task_id=task_id, hours=hours, spans=SPANS, is_live=source.is_live, refresh=0
    )


def _hours() -> int:
    chosen = request.args.get("hours", SPANS[0], type=int)
    return chosen if chosen in SPANS else SPANS[0]
