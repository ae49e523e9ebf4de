"""`dlq redrive`: have SQS move all dead-letter messages back."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import click

from ...commands import Failure
from ...dlq.sqs import DeadLetterQueue
from ...dlq.sqs.queue import RUNNING
from ...durations import counted
from ...environment import find
from ...terminal import Command, console, finish, live_options, plain, progress, say, table

POLL_SECONDS = 1
"""Interval between queries of the progress."""

CONFLICTS = (
    *("--status --cancel", "--status --dry-run", "--status --rate", "--status --no-wait"),
    *("--cancel --dry-run", "--cancel --rate"),
)
"""Options of which one would have no effect. A redrive can be tried with `--dry-run` as it will be started."""


@click.command(
    name="redrive",
    cls=Command,
    examples=(
        "dlq redrive {queue} --rate 10",
        "dlq redrive {queue} --status",
        "dlq redrive {queue} --cancel",
    ),
)
@click.argument("queue")
@click.option("--rate", type=click.IntRange(1, 500), metavar="N", help="Messages per second; by default SQS decides.")
@click.option("--status", is_flag=True, help="Show the status of recent redrives; start none.")
@click.option("--cancel", is_flag=True, help="Cancel a running redrive; moved messages stay moved.")
@click.option("--no-wait", is_flag=True, help="Do not wait for the end.")
@click.option("--dry-run", is_flag=True, help="Only count the messages.")
@live_options
def redrive(
    queue: str,
    rate: int | None,
    status: bool,
    cancel: bool,
    no_wait: bool,
    dry_run: bool,
    environment: str,
    as_json: bool,
) -> None:
    """Have SQS move all dead-letter messages back to QUEUE.

    Interrupting this command does not stop the redrive. Exits with 1 if not all messages were moved.
    """
    chosen = {"--status": status, "--cancel": cancel, "--dry-run": dry_run, "--rate": rate, "--no-wait": no_wait}
    _refuse_conflicts([name for name, value in chosen.items() if value])
    env = find(environment)
    dlq = DeadLetterQueue(env, env.contract.queue(queue))
    if status:
        _print_moves(dlq.moves(), as_json=as_json)
        return
    running = dlq.running_move()
    if cancel:
        if not running:
            raise Failure(f"no redrive of {dlq.name} is running")
        moved = _cancel(dlq, running["TaskHandle"], wait=not no_wait)
        say(as_json, f"cancelled after about {counted(moved, 'message')}", cancelled=True, moved=moved)
        return
    if running:
        raise Failure(f"a redrive of {dlq.name} is running; --status shows it, --cancel stops it")
    target = dlq.target
    if dry_run or not dlq.depth:
        would = "would be moved" if dry_run else "to move"
        say(as_json, f"about {counted(dlq.depth, 'message')} {would} to {target}", moved=0, there=dlq.depth)
        return
    dlq.start_move(rate)
    if no_wait:
        say(as_json, f"started; `dlq redrive {queue} --status` shows the progress", started=True)
        return
    last = _follow(dlq)
    _print_end(last, target, as_json=as_json)
    finish(last["Status"] != "COMPLETED")


def _refuse_conflicts(chosen: list[str]) -> None:
    """Refuse two options of which one would have no effect.

    Raises:
        click.UsageError: there are such.
    """
    for first, second in itertools.combinations(chosen, 2):
        if f"{first} {second}" in CONFLICTS:
            raise click.UsageError(f"{first} and {second} cannot be used together")


def _cancel(dlq: DeadLetterQueue, handle: str, *, wait: bool) -> int:
    """Cancel a redrive, and return how many messages were moved."""
    moved: int = dlq.env.sqs.cancel_message_move_task(TaskHandle=handle)["ApproximateNumberOfMessagesMoved"]
    if wait:  # SQS starts no other redrive before this one has ended.
        moved = _follow(dlq).get("ApproximateNumberOfMessagesMoved", moved)
    return moved


def _print_end(last: dict[str, Any], target: str, *, as_json: bool) -> None:
    moved, total = (last.get(f"ApproximateNumberOfMessages{what}", 0) for what in ("Moved", "ToMove"))
    why = f": {last['FailureReason']}" if last.get("FailureReason") else ""
    text = f"{last['Status'].lower()}: about {moved} of {counted(total, 'message')} moved to {target}{why}"
    say(as_json, text, status=last["Status"], moved=moved, total=total)


def _follow(dlq: DeadLetterQueue) -> dict[str, Any]:
    """Show the progress of the newest redrive until it ends, and return it."""
    try:
        with progress("moving", dlq.depth) as done:
            while True:
                newest = next(iter(dlq.moves()), None)
                if newest:
                    done(newest.get("ApproximateNumberOfMessagesMoved", 0))
                    if newest["Status"] not in RUNNING:
                        return newest
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        raise Failure("SQS continues the redrive; see `dlq redrive --status` and `--cancel`") from None


def _print_moves(moves: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([{name: move[name] for name in move if name != "TaskHandle"} for move in moves]))
        return
    made = table()
    for title in ("STARTED (UTC)", "STATUS", "MOVED", "OF", "RATE", "REASON"):
        made.add_column(title, overflow="fold")
    for move in moves:
        made.add_row(
            time.strftime("%F %T", time.gmtime(move["StartedTimestamp"] / 1_000)),
            move["Status"],
            str(move.get("ApproximateNumberOfMessagesMoved", 0)),
            str(move.get("ApproximateNumberOfMessagesToMove", "?")),
            str(move.get("MaxNumberOfMessagesPerSecond", "-")),
            plain(move.get("FailureReason", "")),
        )
    console().print(made if moves else "no recent redrives")
