"""`dlq`: what tasks left in the dead-letter queues, why, and sending it back.

Looking consumes nothing: what a command has seen it gives back. Nothing is deleted before it is safe elsewhere.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from .. import options, service
from ..commands import Failure
from ..contract import Contract
from ..dlq import DeadLetterQueue, Peek, find
from ..dlq.message import Message, Selection, Sent
from ..terminal import (
    Decorated,
    Group,
    age,
    console,
    duration,
    finish,
    live_options,
    plain,
    printable,
    progress,
    say,
    table,
)

ROWS_PER_TABLE = 50
"""So that ten thousand messages are printed as they come, and none is kept."""


@click.group(name="dlq", cls=Group)
def command() -> None:
    """Dead-letter messages: list, show, redrive, resend, export, import, purge."""


def selecting(function: Decorated) -> Decorated:
    """Add the options that select messages."""
    for option in (
        click.option("--older-than", default="0s", callback=duration, metavar="AGE", help="Sent before: 30m, 2h, 3d."),
        click.option("--task", default="", metavar="NAME", help="Of this task: <queue>.<function>, or its full name."),
        click.option("--id", "ids", multiple=True, metavar="ID", help="Beginning of its id, 8 characters or more."),
    ):
        function = option(function)
    return function


def selection(ids: tuple[str, ...], task: str, older_than: float) -> Selection:
    """Return what the options select."""
    if short := [given for given in ids if len(given) < 8]:
        raise click.UsageError(f"--id {short[0]} is too short to be sure; give 8 characters or more")
    return Selection(ids, task, older_than)


def pages(dlq: DeadLetterQueue, peek: Peek, chosen: Selection, what: str) -> Iterator[list[Message]]:
    """Yield the selected messages of each page, which may be none, and show how far it is."""
    with progress(what, dlq.depth) as done:
        for page in peek.pages():
            yield [message for message in page if chosen.has(message)]
            done(peek.seen)
    dlq.unseen = max(0, dlq.depth - peek.seen)


def warn_unseen(dlq: DeadLetterQueue) -> None:
    """Say on standard error that not everything was shown."""
    if dlq.unseen:
        click.echo(f"about {dlq.unseen} more are there and were not shown: {dlq.why_unseen}", err=True)


@command.command(
    "list",
    examples=(
        "dlq list high",
        "dlq list high --task high.send_invoice --older-than 2h",
    ),
)
@click.argument("queue")
@selecting
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after so many.")
@live_options
def list_(
    queue: str,
    ids: tuple[str, ...],
    task: str,
    older_than: float,
    limit: int | None,
    environment: str,
    as_json: bool,
) -> None:
    """List the dead-letter messages of QUEUE: task, id, age, deliveries (N), group and why.

    Exits with 1 if there are any. With --json, a line of JSON for each.
    """
    chosen = selection(ids, task, older_than)
    contract = service.contract()
    dlq = find(queue, environment)
    kinds: collections.Counter[str] = collections.Counter()
    count = 0
    with dlq.peek() as peek:
        found = itertools.chain.from_iterable(pages(dlq, peek, chosen, "looking"))
        rows: list[Message] = []
        for message in itertools.islice(found, limit):
            count += 1
            if as_json:
                click.echo(json.dumps(message.summary()))
                continue
            rows.append(message)
            if len(kinds) < 1_000 or message.task in kinds:
                kinds[message.task] += 1
            if len(rows) == ROWS_PER_TABLE:
                _print(rows, contract, header=count == ROWS_PER_TABLE)
                rows = []
        if rows:
            _print(rows, contract, header=count <= ROWS_PER_TABLE)
    if not as_json:
        click.echo(f"{count} dead-letter messages in {dlq.name}")
        if len(kinds) > 1:
            for name, times in kinds.most_common(10):
                console().print(plain(f"  {times} x {contract.short_name(name) or 'foreign messages'}"))
    if limit is None or count < limit:
        warn_unseen(dlq)
    finish(count or dlq.unseen)


def _print(messages: list[Message], contract: Contract, *, header: bool) -> None:
    """Print rows of the list; widths are fixed, so that one table continues another."""
    to = console()
    spare = max(0, to.width - 80)
    made = table(show_header=header)
    for title, width in (
        ("TASK", 22 + spare // 3),
        ("ID", 8),
        ("AGE", 4),
        ("N", 2),
        ("GROUP", 10),
        ("WHY", 28 + spare - spare // 3),
    ):
        made.add_column(title, width=width, no_wrap=True, overflow="ellipsis")
    for message in messages:
        made.add_row(
            plain(contract.short_name(message.task) or "(foreign)"),
            plain(message.id[:8]),
            "-" if message.age_seconds is None else age(message.age_seconds),
            str(message.receive_count),
            plain(message.group),
            plain(message.reason),
        )
    to.print(made)


@command.command(examples=("dlq show high --id 2f1c9a44",))
@click.argument("queue")
@click.option("--id", "wanted", required=True, metavar="ID", help="Beginning of its id, 8 characters or more.")
@live_options
def show(queue: str, wanted: str, environment: str, as_json: bool) -> None:
    """Show one dead letter of QUEUE: its arguments, and the traceback where there is one."""
    chosen = selection((wanted,), "", 0)
    dlq = find(queue, environment)
    with dlq.peek() as peek:
        found = next(itertools.chain.from_iterable(pages(dlq, peek, chosen, "looking")), None)
    if found is None:
        warn_unseen(dlq)
        raise Failure(f"no message in {dlq.name} has an id that begins with {wanted}")
    if as_json:
        click.echo(json.dumps({**found.summary(), **found.exported()}))
        return
    made = table(show_header=False)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    rows = [("task", found.task or "none: no message of Celery"), ("id", found.id), ("message", found.message_id)]
    if found.sent_at_seconds:
        rows += [("sent", f"{time.strftime('%F %T', time.gmtime(found.sent_at_seconds))} UTC")]
    rows += [("deliveries", str(found.receive_count)), ("group", found.group), ("why", found.reason)]
    rows += [(name.lower(), found.failure(name)) for name in ("Host", "Attempt")]
    if found.call:
        rows += [("args", found.call.args), ("kwargs", found.call.kwargs), ("eta", found.call.eta)]
    else:
        rows += [("body", found.text)]
    for name, value in rows:
        if value:
            made.add_row(name, plain(value))
    to = console()
    to.print(made)
    for line in found.failure("Traceback").splitlines():
        to.print(plain(line))


command.add_command(options.load(f"{__package__}", options.broker()).redrive)


@command.command(
    examples=(
        "dlq resend high --id 2f1c9a44",
        "dlq resend high --task high.send_invoice --dry-run",
    )
)
@click.argument("queue")
@selecting
@click.option("--dry-run", is_flag=True, help="Only list what would be sent.")
@live_options
def resend(
    queue: str,
    ids: tuple[str, ...],
    task: str,
    older_than: float,
    dry_run: bool,
    environment: str,
    as_json: bool,
) -> None:
    """Send single dead-letter messages back to QUEUE, with their group and attributes.

    A message is deleted after the new one is accepted. Exits with 1 if some were left.
    """
    chosen = selection(ids, task, older_than)
    if chosen.everything:
        raise click.UsageError("say which: --id, --task or --older-than; `dlq redrive` moves all")
    contract = service.contract()
    dlq = find(queue, environment)
    sent = left = 0
    with dlq.peek() as peek:
        for page in pages(dlq, peek, chosen, "resending"):
            if dry_run:
                for message in page:
                    what = contract.short_name(message.task) or "a foreign message"
                    click.echo(printable(f"would resend {what} {message.id}"), err=as_json)
                sent += len(page)
                continue
            outcome = dlq.resend(page)
            peek.delete(outcome.accepted)
            sent += len(outcome.accepted)
            left += _report(outcome)
    if not dry_run and not sent + left:
        warn_unseen(dlq)
        raise Failure(f"no message in {dlq.name} fits")
    what = "would be sent" if dry_run else "sent"
    text = f"{sent} messages {what} to {dlq.target}" + (f", {left} left" if left else "")
    say(as_json, text, sent=0 if dry_run else sent, left=left + (sent if dry_run else 0))
    warn_unseen(dlq)
    finish(left)


def _report(outcome: Sent[Message]) -> int:
    """Say what was not taken, and return how many."""
    for message, reason in outcome.refused:
        click.echo(printable(f"not sent: {message.id}: {reason}"), err=True)
    return len(outcome.refused)


@command.command(
    examples=(
        "dlq export high messages.jsonl",
        "dlq export high old.jsonl --older-than 3d --remove",
    )
)
@click.argument("queue")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@selecting
@click.option("--remove", is_flag=True, help="Delete what is written, page by page, once it is on the disk.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@live_options
def export(
    queue: str,
    file: str,
    ids: tuple[str, ...],
    task: str,
    older_than: float,
    remove: bool,
    dry_run: bool,
    environment: str,
    as_json: bool,
) -> None:
    """Write the dead-letter messages of QUEUE to FILE, a line of JSON for each; - is standard output.

    A FILE that is there already is not touched. Exits with 1 if not all of them were shown.
    """
    if remove and file == "-":
        raise click.UsageError("--remove needs a file: what is piped may not have arrived")
    dlq = find(queue, environment)
    written = _export(dlq, file, selection(ids, task, older_than), remove=remove, dry_run=dry_run)
    what = "would be written" if dry_run else "written"
    say(as_json, f"{written} messages {what} to {file}", written=written, file=file, unseen=dlq.unseen)
    warn_unseen(dlq)
    finish(dlq.unseen)


def _export(dlq: DeadLetterQueue, file: str, chosen: Selection, *, remove: bool, dry_run: bool = False) -> int:
    """Write messages to a file; return how many."""
    written = 0
    with _opened(os.devnull if dry_run else file) as to, dlq.peek() as peek:
        for page in pages(dlq, peek, chosen, "writing"):
            for message in page:
                to.write(json.dumps(message.exported()) + "\n")
            written += len(page)
            if remove and page and not dry_run:
                to.flush()
                os.fsync(to.fileno())
                peek.delete(page)
    return written


def _opened(file: str) -> IO[str]:
    if file == "-":
        return click.open_file(file, "w", encoding="utf-8")
    if file == os.devnull:
        return Path(file).open("w", encoding="utf-8")
    try:
        # What failed may hold what only its owner may read.
        return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
    except FileExistsError:
        raise Failure(f"{file} is there already, and is not touched") from None
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}") from None


@command.command(
    "import",
    examples=(
        "dlq import high messages.jsonl",
        "dlq import high messages.jsonl --to queue",
    ),
)
@click.argument("queue")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--to", type=click.Choice(["dead-letters", "queue"]), default="dead-letters", show_default=True)
@click.option("--skip", type=click.IntRange(0), default=0, metavar="N", help="Lines that were imported before.")
@click.option("--dry-run", is_flag=True, help="Only check the file.")
@live_options
def import_(queue: str, file: str, to: str, skip: int, dry_run: bool, environment: str, as_json: bool) -> None:
    """Send what `dlq export` wrote in FILE to the dead-letter queue of QUEUE, or to QUEUE itself.

    The whole file is checked first. Exits with 1 if some were not taken.
    """
    dlq = find(queue, environment)
    total = sum(1 for _ in _lines(file, skip, dlq))
    sent = left = 0
    to_dead = to == "dead-letters"
    if not dry_run:
        lines = _lines(file, skip, dlq)
        try:
            with progress("sending", total) as done:
                while page := list(itertools.islice(lines, dlq.PAGE)):
                    outcome = dlq.put(page, to_dead=to_dead)
                    sent += len(outcome.accepted)
                    left += _report(outcome)
                    done(sent + left)
        except BaseException:
            click.echo(f"stopped: go on with --skip {skip + sent + left}", err=True)
            raise
    name = dlq.name if to_dead else dlq.target
    text = f"{total} messages would be sent to {name}" if dry_run else f"{sent} messages sent to {name}, {left} left"
    say(as_json, text, sent=sent, left=left, total=total)
    finish(left)


def _lines(file: str, skip: int, dlq: DeadLetterQueue) -> Iterator[Message]:
    """Yield the messages of an exported file."""
    with Path(file).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number <= skip:
                continue
            try:
                message = dlq.imported(line.decode())
            except ValueError as error:
                raise Failure(f"{file}, line {number}: {error}; nothing was sent") from None
            yield message


@command.command(examples=("dlq purge high",))
@click.argument("queue")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@live_options
def purge(queue: str, yes: bool, dry_run: bool, environment: str, as_json: bool) -> None:
    """Delete all dead-letter messages of QUEUE, after offering to export them, and asking for its name.

    Where they are exported, nothing is deleted but what is in the file.
    """
    dlq = find(queue, environment)
    if dry_run or not dlq.depth:
        would = "would be deleted" if dry_run else "are there to delete"
        say(as_json, f"about {dlq.depth} messages {would} in {dlq.name}", purged=0, there=dlq.depth)
        return
    file = ""
    if not yes:
        click.echo(f"About {dlq.depth} messages in {dlq.name} are going to be deleted.", err=True)
        if click.confirm("Export them first?", default=True, err=True):
            file = click.prompt("To which file", default=f"{dlq.name}-{time.strftime('%F-%H%M%S')}.jsonl", err=True)
        typed = click.prompt(f"Type {dlq.name} to delete them", default="", show_default=False, err=True)
        if typed != dlq.name:
            raise Failure("that is not its name; nothing was deleted")
    if not file:
        purged, text = dlq.purge()
        say(as_json, text, purged=purged)
        return
    purged = _export(dlq, file, Selection(), remove=True)
    say(as_json, f"{purged} messages written to {file}, and deleted", purged=purged, file=file)
    warn_unseen(dlq)
    finish(dlq.unseen)
