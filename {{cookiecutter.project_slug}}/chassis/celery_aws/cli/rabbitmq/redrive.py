"""`dlq redrive`: move all dead-letter messages back, page by page."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from ...dlq.rabbitmq import DeadLetterQueue
from ...durations import counted
from ...environment import find
from ...terminal import Command, finish, live_options, printable, progress, say


@click.command(name="redrive", cls=Command, examples=("dlq redrive {queue}", "dlq redrive {queue} --rate 10"))
@click.argument("queue")
@click.option("--rate", type=click.IntRange(1, 500), metavar="N", help="Maximum number of messages per second.")
@click.option("--dry-run", is_flag=True, help="Only count the messages.")
@live_options
def redrive(queue: str, rate: int | None, dry_run: bool, environment: str, as_json: bool) -> None:
    """Move all dead-letter messages back to QUEUE.

    Their receive count is 0 again. Ctrl-C stops after a page. A message is deleted after its copy is confirmed.
    Exits with 1 if not all were moved.
    """
    env = find(environment)
    dlq = DeadLetterQueue(env, env.contract.queue(queue))
    if dry_run or not dlq.depth:
        would = "would be moved" if dry_run else "to move"
        say(as_json, f"{counted(dlq.depth, 'message')} {would} to {dlq.target}", moved=0, there=dlq.depth)
        return
    moved = 0

    def count(outcome: Any) -> int:
        nonlocal moved
        moved += len(outcome.accepted)
        return moved

    try:
        with stoppable() as is_stopped, progress("moving", dlq.depth) as done:
            dlq.move(rate or 100, _reported(rate, is_stopped, count, done))
    finally:  # Also if the broker no longer responds; the error follows.
        status = "COMPLETED" if moved == dlq.depth else "STOPPED"
        text = f"{status.lower()}: {moved} of {counted(dlq.depth, 'message')} moved to {dlq.target}"
        say(as_json, text, status=status, moved=moved, total=dlq.depth)
    finish(moved < dlq.depth)


def _reported(
    rate: int | None, is_stopped: Callable[[], bool], count: Callable[[Any], int], done: Callable[[int], None]
) -> Callable[[Any], bool]:
    """Return a function that reports the outcome of a page, keeps to the rate, and returns whether to go on."""
    began = time.monotonic()

    def report(outcome: Any) -> bool:
        done(moved := count(outcome))
        for message, reason in outcome.refused[:1]:
            click.echo(printable(f"not sent: {message.id}: {reason}"), err=True)
        next_page_at = began + (moved / rate if rate else 0)
        while not (stopped := is_stopped()) and (pause := next_page_at - time.monotonic()) > 0:
            time.sleep(min(pause, 0.2))
        return not stopped

    return report


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Delay the first Ctrl-C or SIGTERM; yield a function that returns whether there was one."""
    received: list[int] = []

    def record(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
