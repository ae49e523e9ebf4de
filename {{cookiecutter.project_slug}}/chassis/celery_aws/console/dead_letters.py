"""The pages of dead-letter messages: filter, read, edit, resend, redrive, export and purge."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, Response, abort, current_app, flash, redirect, render_template, request, send_file, url_for

from .. import dlq as dead
from ..dlq import DeadLetterQueue, Peek
from ..dlq.editing import edited
from ..dlq.message import ArgumentsError, Message, Selection, Sent, read_arguments
from ..durations import counted
from .overview import find_queue

MOST_SHOWN = 100
"""Messages on a page; a filter reaches the others."""

IN_MEMORY_BYTES = 8 * 1_048_576
"""Exports above this size are in a temporary file until they are downloaded."""

AGES = {"": 0, "10m": 600, "1h": 3_600, "1d": 86_400, "3d": 259_200}
"""Minimum ages to choose from, in seconds."""


def add_pages(app: Flask) -> None:
    """Add the pages to the application."""
    queue = "/queues/<queue>"
    app.add_url_rule(queue, "queue", show_queue)
    app.add_url_rule(f"{queue}/export", "export", export)
    app.add_url_rule(f"{queue}/messages/<key>", "message", show_message)
    for name, change in {"resend": resend, "redrive": redrive, "purge": purge}.items():
        app.add_url_rule(f"{queue}/{name}", name, change, methods=["POST"])
    app.add_url_rule(f"{queue}/messages/<key>/edit", "edit", resend_edited, methods=["POST"])


@contextlib.contextmanager
def opened(queue: str) -> Iterator[DeadLetterQueue]:
    """Yield the dead-letter queue of a queue, of which there is one user at a time."""
    found = find_queue(queue)
    with current_app.extensions["peeking"]:
        dlq = dead.of(current_app.extensions["env"], found)
        try:
            yield dlq
        finally:
            dlq.close()


def selection() -> Selection:
    """Return what the filter of the page selects."""
    ids = request.values.get("id", "").split()
    return Selection(tuple(ids), request.values.get("task", "").strip(), AGES.get(request.values.get("age", ""), 0))


def pages(dlq: DeadLetterQueue, peek: Peek, chosen: Callable[[Message], bool]) -> Iterator[list[Message]]:
    """Yield the chosen messages of each page."""
    for page in peek.pages():
        yield [message for message in page if chosen(message)]
    dlq.unseen = max(0, dlq.depth - peek.seen)


def show_queue(queue: str) -> str:
    """Show the dead-letter messages of a queue that the filter selects."""
    chosen = selection()
    with opened(queue) as dlq, dlq.peek() as peek:
        found = itertools.chain.from_iterable(pages(dlq, peek, chosen.has))
        messages = list(itertools.islice(found, MOST_SHOWN))
    filters = {name: request.args.get(name, "") for name in ("id", "task", "age")}
    return render_template(
        "queue.html",
        queue=queue,
        dlq=dlq,
        messages=messages,
        chosen=chosen,
        filters=filters,
        ages=AGES,
        most=MOST_SHOWN,
    )


def show_message(queue: str, key: str) -> str:
    """Show a message with arguments and traceback."""
    with opened(queue) as dlq, dlq.peek() as peek:
        message = find(dlq, peek, key)
    return _message_page(queue, dlq, message)


def find(dlq: DeadLetterQueue, peek: Peek, key: str) -> Message:
    """Return the message with a key; the page says if there is none."""
    found = next(itertools.chain.from_iterable(pages(dlq, peek, lambda message: message.key == key)), None)
    if found is None:
        why = f"; or {dlq.why_unseen}" if dlq.unseen else ""
        abort(404, f"This message is no longer in {dlq.name}: it was resent, redriven or deleted{why}.")
    return found


def _message_page(queue: str, dlq: DeadLetterQueue, message: Message, problem: str = "") -> str:
    call = message.call
    held = {"args": call.args, "kwargs": call.kwargs} if call else {}
    return render_template(
        "message.html", queue=queue, dlq=dlq, message=message, fields={**held, **request.form}, problem=problem
    )


def resend(queue: str) -> Any:
    """Send the marked messages back, or all that the filter selects."""
    chosen, keys = selection(), set(request.form.getlist("key"))
    if request.form.get("which") == "marked":
        chosen_by: Callable[[Message], bool] = lambda message: message.key in keys  # noqa: E731
    elif chosen.everything:
        abort(400, "Filter the messages first; redrive moves all.")
    else:
        chosen_by = chosen.has
    sent = 0
    refused: list[str] = []
    with opened(queue) as dlq, dlq.peek() as peek:
        for page in pages(dlq, peek, chosen_by):
            outcome = dead.resend(dlq, peek, page) if page else Sent[Message]((), ())
            sent += len(outcome.accepted)
            refused += [f"{message.id} was not sent: {reason}" for message, reason in outcome.refused]
    flash(f"{counted(sent, 'message')} sent to {dlq.target}.")
    for line in refused[:10]:
        flash(line)
    return redirect(url_for("queue", queue=queue), 303)


def resend_edited(queue: str, key: str) -> Any:
    """Send a message back with the arguments in the form."""
    with opened(queue) as dlq, dlq.peek() as peek:
        message = find(dlq, peek, key)
        try:
            changed = edited(message, *read_arguments(request.form.get("args", ""), request.form.get("kwargs", "")))
        except ArgumentsError as error:
            return _message_page(queue, dlq, message, f"Nothing was sent: {error}."), 400
        outcome = dead.resend(dlq, peek, [changed])
    for _, reason in outcome.refused:
        return _message_page(queue, dlq, message, f"Not sent: {reason}."), 502
    flash(f"Message {message.id} sent to {dlq.target}.")
    return redirect(url_for("queue", queue=queue), 303)


def redrive(queue: str) -> Any:
    """Move all messages back to the queue."""
    with opened(queue) as dlq:
        flash(f"{dlq.redrive()}.")
    return redirect(url_for("queue", queue=queue), 303)


def purge(queue: str) -> Any:
    """Delete all messages, if somebody has typed the name of the dead-letter queue."""
    with opened(queue) as dlq:
        if request.form.get("name") != dlq.name:
            abort(400, f"The name does not match {dlq.name}; nothing was deleted.")
        flash(f"{dlq.purge()[1]}.")
    return redirect(url_for("queue", queue=queue), 303)


def export(queue: str) -> Response:
    """Return the selected messages as a file, one JSON object per line; they stay in the queue."""
    chosen = selection()
    # Written as a whole before it is downloaded, so that a slow download holds no messages.
    file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 - Flask closes it
    with opened(queue) as dlq, dlq.peek() as peek:
        for page in pages(dlq, peek, chosen.has):
            file.writelines(dead.exported(dlq, message).encode() for message in page)
    file.seek(0)
    rest = f"-without-{dlq.unseen}-unseen" if dlq.unseen else ""
    return send_file(file, "application/jsonl", as_attachment=True, download_name=f"{dlq.name}{rest}.jsonl")
