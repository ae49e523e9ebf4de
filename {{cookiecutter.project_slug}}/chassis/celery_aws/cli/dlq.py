"""`dlq`: list, resend, redrive, export, import and purge dead-letter messages.

Commands that only read release the messages again. A message is deleted only after its copy is confirmed.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import click

from .. import options, service
from ..commands import Failure
from ..contract import Contract
from ..dlq import DeadLetterQueue, Peek, exported, find, imported
from ..dlq import resend as resend_messages
from ..dlq.editing import edited
from ..dlq.message import Message, Selection, Sent, read_arguments
from ..durations import age, counted
from ..terminal import (
    Decorated,
    Group,
    console,
    duration,
    finish,
    live_options,
    plain,
    printable,
    progress,
    said,
    say,
    table,
)

ROWS_PER_TABLE = 50
"""Messages per table; large lists are printed in parts instead of being kept in memory."""

SHOWN_BODY_CHARACTERS = 2_000
"""Characters of a body that `dlq show` prints."""

LEAST_REASON_CHARACTERS = 6
"""Least width of the column REASON; a narrower one would say nothing, and is left out."""


@click.group(name="dlq", cls=Group)
def command() -> None:
    """List, show, resend, export or purge dead-letter messages."""


def selecting(function: Decorated) -> Decorated:
    """Add the options that select messages."""
    for option in (
        click.option("--older-than", default="0s", callback=duration, metavar="AGE", help="Minimum age: 30m, 2h, 3d."),
        click.option("--task", default="", metavar="NAME", help="Task: <module>.<function>, or its full name."),
        click.option("--id", "ids", multiple=True, metavar="ID", help="Prefix of the id, at least 8 characters."),
    ):
        function = option(function)
    return function


def selection(ids: tuple[str, ...], task: str, older_than: float) -> Selection:
    """Return what the options select."""
    if short := [given for given in ids if len(given) < 8]:
        raise click.UsageError(f"--id {short[0]} is too short; use at least 8 characters")
    return Selection(ids, task, older_than)


def pages(dlq: DeadLetterQueue, peek: Peek, chosen: Selection, what: str) -> Iterator[list[Message]]:
    """Yield the selected messages of each page, and show the progress."""
    with progress(what, dlq.depth) as done:
        for page in peek.pages():
            yield [message for message in page if chosen.has(message)]
            done(peek.seen)
    dlq.unseen = max(0, dlq.depth - peek.seen)


def warn_unseen(dlq: DeadLetterQueue) -> None:
    """Print on standard error that some messages were not shown."""
    if dlq.unseen:
        click.echo(f"about {counted(dlq.unseen, 'more message')} not shown: {dlq.why_unseen}", err=True)


@command.command(
    "list",
    examples=(
        "dlq list {queue}",
        "dlq list {queue} --task {module}.send_invoice --older-than 2h",
    ),
)
@click.argument("queue")
@selecting
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Maximum number of messages.")
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
    """List the dead-letter messages of QUEUE.

    It shows task, id, age, receive count (N), group and reason. Exits with 1 if there are any. With --json,
    prints one JSON object per line.
    """
    chosen = selection(ids, task, older_than)
    contract = service.contract()
    dlq = find(queue, environment)
    kinds: collections.Counter[str] = collections.Counter()
    count = 0
    with dlq.peek() as peek:
        found = itertools.chain.from_iterable(pages(dlq, peek, chosen, "reading"))
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
        is_limited = count == limit
        of = "" if chosen.everything and not is_limited else f"{count} of about "
        total = counted(max(dlq.depth, count) if of else count, "dead-letter message")
        match = "" if chosen.everything or is_limited else " match"
        click.echo(f"{of}{total} in {dlq.name}{match}")
        _print_kinds(kinds, contract)
    if limit is None or count < limit:
        warn_unseen(dlq)
    finish(count or dlq.unseen)


def _print_kinds(kinds: collections.Counter[str], contract: Contract) -> None:
    """Print how often each task was listed, if there are several."""
    if len(kinds) > 1:
        for name, times in kinds.most_common(10):
            console().print(plain(f"  {times} x {contract.short_name(name) or 'not a Celery message'}"))


def _widths(total: int) -> dict[str, int]:
    """Return the widths of the columns of the list, which are the same in each part of it.

    In a narrow terminal the reason gives way first, and then names, which wrap. Ids and figures stay whole.
    """
    spare = max(0, total - 80)
    widths = {"TASK": 22 + spare // 3, "ID": 8, "AGE": 4, "N": 3, "GROUP": 10, "REASON": 27 + spare - spare // 3}
    for title, least in (("REASON", LEAST_REASON_CHARACTERS), ("REASON", 0), ("GROUP", 5), ("TASK", 5)):
        excess = sum(width + 1 for width in widths.values() if width) - total
        if excess > 0:
            widths[title] = max(least, widths[title] - excess) if least else 0
    return {title: width for title, width in widths.items() if width}


def _print(messages: list[Message], contract: Contract, *, header: bool) -> None:
    """Print rows of the list."""
    to = console()
    widths = _widths(to.width)
    made = table(show_header=header)
    for title, width in widths.items():
        is_reason = title == "REASON"
        made.add_column(title, width=width, no_wrap=is_reason, overflow="ellipsis" if is_reason else "fold")
    for message in messages:
        made.add_row(
            plain(contract.short_name(message.task) or "(not Celery)"),
            plain(message.id[:8]),
            "-" if message.age_seconds is None else age(message.age_seconds),
            str(message.receive_count),
            plain(message.group),
            *([plain(message.reason)] if "REASON" in widths else []),
        )
    to.print(made)


@command.command(examples=("dlq show {queue} --id 2f1c9a44",))
@click.argument("queue")
@click.option("--id", "wanted", required=True, metavar="ID", help="Prefix of the id, at least 8 characters.")
@live_options
def show(queue: str, wanted: str, environment: str, as_json: bool) -> None:
    """Show one message of QUEUE with arguments and traceback."""
    chosen = selection((wanted,), "", 0)
    dlq = find(queue, environment)
    with dlq.peek() as peek:
        found = next(itertools.chain.from_iterable(pages(dlq, peek, chosen, "reading")), None)
    if found is None:
        warn_unseen(dlq)
        raise Failure(f"no message in {dlq.name} has an id with the prefix {wanted}")
    if as_json:
        click.echo(json.dumps({**found.summary(), **found.exported()}))
        return
    made = table(show_header=False)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    rows = [("task", found.task or "not a Celery message"), ("id", found.id), ("message", found.message_id)]
    if found.sent_at_seconds:
        rows += [("sent", f"{time.strftime('%F %T', time.gmtime(found.sent_at_seconds))} UTC")]
    rows += [("receives", str(found.receive_count)), ("group", found.group), ("reason", found.reason)]
    rows += [(name.lower(), found.failure(name)) for name in ("Host", "Attempt")]
    if found.call:
        rows += [("args", found.call.args), ("kwargs", found.call.kwargs), ("eta", found.call.eta)]
    if not found.is_readable:
        rest = f" and {len(found.text) - SHOWN_BODY_CHARACTERS:,} more characters; --json shows all"
        body = found.text[:SHOWN_BODY_CHARACTERS] + (rest if len(found.text) > SHOWN_BODY_CHARACTERS else "")
        rows += [("type", found.content_type), ("body", body or "(empty)")]
    for name, value in rows:
        if value:
            made.add_row(name, plain(value))
    to = console()
    to.print(made)
    # That of an unreadable message has lines of Celery only.
    for line in found.failure("Traceback").splitlines() if found.is_readable else ():
        to.print(plain(line), soft_wrap=True)


command.add_command(options.load(f"{__package__}", options.broker()).redrive)


@command.command(
    examples=(
        "dlq resend {queue} --id 2f1c9a44",
        "dlq resend {queue} --task {module}.send_invoice --dry-run",
        """dlq resend {queue} --id 2f1c9a44 --args '["customer 7", 250]'""",
    )
)
@click.argument("queue")
@selecting
@click.option("--args", metavar="JSON", help="Send one message with these positional arguments, a JSON list.")
@click.option("--kwargs", metavar="JSON", help="Send one message with these keyword arguments, a JSON object.")
@click.option("--dry-run", is_flag=True, help="Only list the messages.")
@live_options
def resend(
    queue: str,
    ids: tuple[str, ...],
    task: str,
    older_than: float,
    args: str | None,
    kwargs: str | None,
    dry_run: bool,
    environment: str,
    as_json: bool,
) -> None:
    """Send selected messages back to QUEUE.

    They keep their group and attributes. A message is deleted after its copy is confirmed. Exits with 1 if some
    could not be sent.
    """
    chosen = selection(ids, task, older_than)
    if chosen.everything:
        raise click.UsageError("select messages with --id, --task or --older-than; `dlq redrive` moves all")
    dlq = find(queue, environment)
    sent = left = 0
    is_edited = (args, kwargs) != (None, None)
    what = "would be sent" if dry_run else "sent"
    with _counted_if_stopped(lambda: f"{counted(sent, 'message')} {what} to {dlq.target}"), dlq.peek() as peek:
        found = pages(dlq, peek, chosen, "resending")
        for page in [_edited(list(itertools.chain.from_iterable(found)), args, kwargs)] if is_edited else found:
            if dry_run:
                _announce(page, as_json=as_json)
                sent += len(page)
                continue
            outcome = resend_messages(dlq, peek, page)
            sent += len(outcome.accepted)
            left += _report(outcome)
    if not dry_run and not sent + left:
        warn_unseen(dlq)
        raise Failure(f"no message in {dlq.name} matches")
    text = f"{counted(sent, 'message')} {what} to {dlq.target}" + (f", {left} left" if left else "")
    say(as_json, text, sent=0 if dry_run else sent, left=left + (sent if dry_run else 0))
    warn_unseen(dlq)
    finish(left)


@contextlib.contextmanager
def _counted_if_stopped(count: Callable[[], str]) -> Iterator[None]:
    """Print on standard error what was done, if the broker no longer responds or the command is interrupted."""
    try:
        yield
    except Failure:  # It says so itself.
        raise
    except BaseException:
        click.echo(f"stopped: {count()}", err=True)
        raise


def _announce(page: list[Message], *, as_json: bool) -> None:
    """Print what would be resent."""
    contract = service.contract()
    for message in page:
        what = contract.short_name(message.task) or "(not Celery)"
        click.echo(printable(f"would resend {what} {message.id}"), err=as_json)


def _edited(found: list[Message], args: str | None, kwargs: str | None) -> list[Message]:
    """Return the only message with other arguments; those that are None stay.

    Raises:
        Failure: there is no message, or there are several.
    """
    if len(found) != 1:
        raise Failure(f"{counted(len(found), 'message')} match; --args and --kwargs require exactly one")
    call = found[0].call
    held = (call.args, call.kwargs) if call and call.is_decoded else ("[]", "{}")
    return [edited(found[0], *read_arguments(args or held[0], kwargs or held[1]))]


def _report(outcome: Sent[Message]) -> int:
    """Print the messages that were not sent, and return their number."""
    for message, reason in outcome.refused:
        click.echo(printable(f"not sent: {message.id}: {reason}"), err=True)
    return len(outcome.refused)


@command.command(
    examples=(
        "dlq export {queue} messages.jsonl",
        "dlq export {queue} old.jsonl --older-than 3d --remove",
    )
)
@click.argument("queue")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@selecting
@click.option("--remove", is_flag=True, help="Delete exported messages, after they are written to disk.")
@click.option("--dry-run", is_flag=True, help="Only count the messages.")
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
    """Write the dead-letter messages of QUEUE to FILE.

    It writes one JSON object per line; - is standard output. An existing FILE is not overwritten. Exits with 1
    if some messages could not be read. The number of messages goes to standard error if FILE is -.
    """
    if remove and file == "-":
        raise click.UsageError("--remove requires a file: the reader of a pipe may have failed")
    dlq = find(queue, environment)
    written = _export(dlq, file, selection(ids, task, older_than), remove=remove, dry_run=dry_run)
    what = "would be written" if dry_run else "written"
    text = f"{counted(written, 'message')} {what} to {file}"
    result = said(as_json, text, written=written, file=file, unseen=dlq.unseen)
    click.echo(result, err=file == "-" and not dry_run)
    warn_unseen(dlq)
    finish(dlq.unseen)


def _export(dlq: DeadLetterQueue, file: str, chosen: Selection, *, remove: bool, dry_run: bool = False) -> int:
    """Write messages to a file; return how many.

    Raises:
        Failure: the file cannot be written. It ends with the last complete page, and no other was removed.
    """
    written = 0
    opened = _opened(os.devnull if dry_run else file)
    what = "would be written" if dry_run else "written"
    with (
        opened as to,
        _counted_if_stopped(lambda: f"{counted(written, 'message')} {what} to {file}"),
        dlq.peek() as peek,
    ):
        for page in pages(dlq, peek, chosen, "writing"):
            try:
                _append(to, [exported(dlq, message) for message in page], is_regular=not dry_run and file != "-")
            except OSError as error:
                if file == "-":
                    raise
                if not written:
                    Path(file).unlink(missing_ok=True)
                removed = f", removed from {dlq.name}" if remove else ""
                kept = f"it has {counted(written, 'message')}{removed}" if written else "nothing was written or removed"
                raise Failure(f"{file} cannot be written: {error.strerror}; {kept}") from error
            written += len(page)
            if remove and page and not dry_run:
                peek.delete(page)
    return written


def _append(to: IO[bytes], page: list[str], *, is_regular: bool) -> None:
    """Append a page of lines to a file; if it is a regular one, all of the page is on disk, or nothing of it."""
    start = to.tell() if is_regular else 0
    try:
        for line in page:
            data = memoryview(line.encode())
            while data:  # A disk that is nearly full takes a part.
                data = data[to.write(data) :]
        if is_regular:
            os.fsync(to.fileno())
    except BaseException:
        if is_regular:
            to.truncate(start)
        raise


def _opened(file: str) -> IO[bytes]:
    """Open the file of an export; unbuffered, so that closing it writes nothing more, unless it is standard output."""
    if file == "-":
        return click.open_file(file, "wb")
    if file == os.devnull:
        return Path(file).open("wb", buffering=0)
    try:
        # Messages may contain sensitive data.
        return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)
    except FileExistsError:
        raise Failure(f"{file} already exists and was not overwritten") from None
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}") from None


@command.command(
    "import",
    examples=(
        "dlq import {queue} messages.jsonl",
        "dlq import {queue} messages.jsonl --to queue",
    ),
)
@click.argument("queue")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--to", type=click.Choice(["dead-letters", "queue"]), default="dead-letters", show_default=True)
@click.option("--skip", type=click.IntRange(0), default=0, metavar="N", help="Skip N lines, imported before.")
@click.option("--dry-run", is_flag=True, help="Only check the file.")
@live_options
def import_(queue: str, file: str, to: str, skip: int, dry_run: bool, environment: str, as_json: bool) -> None:
    """Send the messages of an exported FILE.

    They go to the dead-letter queue of QUEUE, or to QUEUE. The whole file is checked first. Exits with 1 if
    some could not be sent.
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
            click.echo(f"interrupted; continue with --skip {skip + sent + left}", err=True)
            raise
    name = dlq.name if to_dead else dlq.target
    text = f"{counted(sent, 'message')} sent to {name}, {left} left"
    if dry_run:
        text = f"{counted(total, 'message')} would be sent to {name}"
    say(as_json, text, sent=sent, left=left, total=total)
    finish(left)


def _lines(file: str, skip: int, dlq: DeadLetterQueue) -> Iterator[Message]:
    """Yield the messages of an exported file."""
    with Path(file).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number <= skip:
                continue
            try:
                message = imported(dlq, line.decode())
            except ValueError as error:
                raise Failure(f"{file}, line {number}: {error}; nothing was sent") from None
            yield message


@command.command(examples=("dlq purge {queue}",))
@click.argument("queue")
@click.option("--yes", is_flag=True, help="Do not prompt.")
@click.option("--dry-run", is_flag=True, help="Only count the messages.")
@live_options
def purge(queue: str, yes: bool, dry_run: bool, environment: str, as_json: bool) -> None:
    """Delete all dead-letter messages of QUEUE.

    A prompt offers to export them before. If they are exported, only exported messages are deleted.
    """
    dlq = find(queue, environment)
    if dry_run or not dlq.depth:
        would = "would be deleted" if dry_run else "to delete"
        say(as_json, f"about {counted(dlq.depth, 'message')} {would} in {dlq.name}", purged=0, there=dlq.depth)
        return
    file = ""
    if not yes:
        click.echo(f"About {counted(dlq.depth, 'message')} in {dlq.name} will be deleted.", err=True)
        if click.confirm("Export them first?", default=True, err=True):
            file = click.prompt("To which file", default=f"{dlq.name}-{time.strftime('%F-%H%M%S')}.jsonl", err=True)
        typed = click.prompt(f"Type {dlq.name} to delete them", default="", show_default=False, err=True)
        if typed != dlq.name:
            raise Failure("the name does not match; nothing was deleted")
    if not file:
        purged, text = dlq.purge()
        say(as_json, text, purged=purged)
        return
    purged = _export(dlq, file, Selection(), remove=True)
    say(as_json, f"{counted(purged, 'message')} written to {file} and deleted", purged=purged, file=file)
    warn_unseen(dlq)
    finish(dlq.unseen)
