"""How the on-call commands talk: options, tables, progress, errors and exit codes.

Exit codes are for cron: 0 all is well, 1 something was found or left, 2 it could not look or do it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .commands import Failure

FOUND = 1
"""Exit code where something was found or left."""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Command(click.Command):
    """A command that explains what AWS refuses, and tidies up when it is told to stop.

    Its examples, command lines without the service's name, end its help text.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"  {ctx.find_root().info_name} {example}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # What a terminal has no sign for is no reason to end.
                stream.reconfigure(errors="replace")
        with explained(), _terminable():
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Report what AWS refused, or this machine, without a traceback.

    Raises:
        Failure: with what to do about it.
    """
    try:
        yield
    except (click.Abort, KeyboardInterrupt):
        raise Failure("stopped before the end; no message is lost") from None
    except Exception as error:
        if advice := explanation(error):
            raise Failure(advice) from error
        raise


def explanation(error: Exception) -> str:
    """Return what an error of AWS, or of this machine, means and what to do; nothing if it is none."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    if isinstance(error, NoCredentialsError):
        return "no AWS credentials were found; log in, or set AWS_PROFILE"
    if isinstance(error, BotoCoreError):
        return f"AWS could not be asked: {error}"
    if isinstance(error, OSError) and error.errno not in (None, errno.EPIPE):  # Who reads no more has seen enough.
        return f"this machine says: {error}"
    if not isinstance(error, ClientError):
        return ""
    code = error_code(error)
    said = f"{error.operation_name}: {error.response.get('Error', {}).get('Message') or code}"
    if is_denied(error):
        return f"these credentials may not do {said}; docs/operations.md lists what each command needs"
    if is_missing(error):
        return f"{said} Is --environment right, and are these credentials of its account?"
    if code in ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"):
        return f"AWS does not take these credentials ({said}); log in again"
    return f"AWS refused {said} ({code})"


def error_code(error: Any) -> str:
    """Return the code of an error of AWS; nothing if AWS was not reached."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def is_denied(error: Any) -> bool:
    """Return whether an error of AWS says that a right is missing."""
    return error_code(error) in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403")


def is_missing(error: Any) -> bool:
    """Return whether an error of AWS says that there is no such queue."""
    return any(name in error_code(error) for name in ("NonExistentQueue", "QueueDoesNotExist"))


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that it gives back what it holds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _environment(context: click.Context, option: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]{0,10}", value):
        raise click.BadParameter(f"{value!r} is no environment: up to 11 lower-case letters and digits")
    return value


environment_option = click.option(
    "--environment", envvar="ENVIRONMENT", required=True, callback=_environment, help="Default: $ENVIRONMENT."
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")


def live_options(function: Decorated) -> Decorated:
    """Add the options of every command that looks at the live world."""
    decorated: Decorated = environment_option(json_option(function))
    return decorated


def console() -> Console:
    """Return what prints for people: in colour on a terminal only, and 80 columns wide where there is none."""
    return Console(highlight=False)


def printable(value: object) -> str:
    """Return text of unknown origin as one line without control codes."""
    return "".join(c if c.isprintable() else "\N{MIDDLE DOT}" for c in str(value))


def plain(value: object) -> Text:
    """Return text of unknown origin for a table: no markup, no control codes."""
    return Text(printable(value))


def table(**options: Any) -> Table:
    """Return an empty table in the style of all of them."""
    return Table(**{"box": None, "padding": (0, 1, 0, 0), "header_style": "bold", **options})


def say(as_json: bool, text: str, **fields: object) -> None:
    """Print a result: a sentence for people, or its fields as a line of JSON."""
    click.echo(json.dumps(fields, default=str) if as_json else text)


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show on standard error, if that is a terminal, how far long work is; yield what is told how much is done."""
    to = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=to, transient=True, disable=not to.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def age(seconds: float) -> str:
    """Write a time span in four characters or so."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


def duration(context: click.Context, option: click.Parameter, value: str) -> float:
    """Turn a time span of the command line, `2h`, into seconds, 7200.0; an option's callback."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", value, re.ASCII)
    if not found:
        raise click.BadParameter(f"{value!r} is no time span; write 90s, 30m, 2h or 3d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[found[2]]


def finish(found: object) -> None:
    """End the command, with exit code 1 if something was found."""
    sys.exit(FOUND if found else 0)
