"""The application of the console: what its pages share."""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask, render_template
from werkzeug.exceptions import HTTPException

from ..aws import explanation
from ..commands import Failure
from ..durations import age, counted
from . import dead_letters, overview, tasks
from .access import protect
from .text import editable, readable, utc

MOST_FORM_BYTES = 4 * 1_048_576
"""Largest form; a message has at most 1 MiB."""


def make_app(env: Any, token: str, *, read_only: bool) -> Flask:
    """Return the application for an environment.

    Args:
        env: the environment.
        token: what the first request of a browser must have in its address.
        read_only: refuse everything that changes something.
    """
    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=MOST_FORM_BYTES, MAX_FORM_MEMORY_SIZE=MOST_FORM_BYTES)
    # Two peeks at the same time would hide messages from each other.
    app.extensions.update(env=env, peeking=threading.Lock())
    app.jinja_options = {"finalize": readable, "trim_blocks": True, "lstrip_blocks": True}
    app.add_template_filter(age)
    app.add_template_filter(counted)
    app.add_template_filter(editable)
    app.add_template_filter(readable)
    app.add_template_filter(utc)
    app.add_template_filter(env.contract.short_name, "short")
    app.context_processor(lambda: {"service": env.contract.service, "environment": env.environment})
    protect(app, token, read_only=read_only)
    for module in (overview, dead_letters, tasks):
        module.add_pages(app)
    app.register_error_handler(Exception, _explain)
    return app


def _explain(error: Exception) -> tuple[str, int]:
    """Return a page that says what an error means and what to do.

    Raises:
        Exception: it is a bug.
    """
    if isinstance(error, HTTPException):
        return render_template("error.html", title=error.name, text=error.description), error.code or 500
    text = explanation(error)
    if isinstance(error, Failure) or type(error).__module__.startswith(f"{__package__.partition('.')[0]}."):
        text = text or str(error)
    if not text:
        raise error
    return render_template("error.html", title="This did not work", text=text), 502
