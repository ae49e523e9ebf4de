"""Input and output of the operator commands: options, tables, progress, errors and exit codes.

Exit codes, for scripts and cron: 0 no findings, 1 something was found or left over, 2 the command failed.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from .commands import Documented, Failure, replace_unencodable

FOUND = 1
"""Exit code if something was found or left over."""

WIDEST_CELL_CHARACTERS = 1_000
"""Characters of a cell that are measured."""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Command(Documented):
    """A command that explains errors of AWS, and cleans up on SIGTERM."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; characters that a terminal cannot show are replaced."""
        replace_unencodable()
        with explained(), _terminable():
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


class DefaultGroup(Group):
    """A group that runs its command `list` if none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Name the command, unless one is named or help is asked for."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Report errors of AWS and of this machine without a traceback.

    Raises:
        Failure: says what the error means and what to do.
    """
    try:
        yield
    except (click.Abort, KeyboardInterrupt):
        raise Failure("interrupted; no message is lost") from None
    except Exception as error:
        from .aws import explanation  # Only now: commands start fast without botocore.

        if advice := explanation(error):
            raise Failure(advice) from error
        raise


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that a command releases the messages that it holds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_environment(context: click.Context, option: click.Parameter, value: str) -> str:
    """Return the value of an option for an environment, which may be empty if it is optional.

    Raises:
        click.BadParameter: it is not the name of an environment.
    """
    if (value or option.required) and not re.fullmatch(r"[a-z][a-z0-9]{0,10}", value):
        raise click.BadParameter(f"{value!r} is not an environment name: up to 11 lower-case letters and digits")
    return value


environment_option = click.option(
    "--environment",
    envvar="ENVIRONMENT",
    required=True,
    show_envvar=True,
    callback=check_environment,
    help="Such as production.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def live_options(function: Decorated) -> Decorated:
    """Add the options of every command that accesses an environment."""
    decorated: Decorated = environment_option(json_option(function))
    return decorated


def console() -> Console:
    """Return a console for plain output: in colour on a terminal, and 80 columns wide otherwise."""
    return Console(highlight=False)


def printable(value: object) -> str:
    """Return untrusted text as one line without control characters."""
    return "".join(c if c.isprintable() else "\N{MIDDLE DOT}" for c in str(value))


def plain(value: object) -> Text:
    """Return untrusted text for a table, without markup and control characters."""
    return Text(printable(value))


def table(**options: Any) -> Table:
    """Return an empty table in the style of the commands."""
    return Table(**{"box": None, "padding": (0, 1, 0, 0), "header_style": "bold", **options})


class Fitting:
    """A table; in a terminal that is too narrow for it, a line for each cell instead, after its heading.

    rich would shorten figures, and break names.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, to: Console, options: ConsoleOptions) -> RenderResult:
        """Render the table, or its cells."""
        if sum(self._width(column, to, options) for column in self.table.columns) <= options.max_width:
            yield self.table
            return
        yield Text.from_markup(str(self.table.title))
        for row in zip(*(column.cells for column in self.table.columns), strict=True):
            cells = table(show_header=False)
            cells.add_column(no_wrap=True)
            cells.add_column(overflow="fold")
            for column, cell in zip(self.table.columns, row, strict=True):
                cells.add_row(column.header, cell)
            yield cells
            yield Text()
        if self.table.caption:
            yield Text.from_markup(str(self.table.caption))

    def _width(self, column: Column, to: Console, options: ConsoleOptions) -> int:
        """Return how wide a column must be, with its padding: as its cells, or as their longest words if they wrap."""
        wide = options.update(width=WIDEST_CELL_CHARACTERS)
        widths = [Measurement.get(to, wide, cell) for cell in (column.header, *column.cells)]
        return max(each.maximum if column.no_wrap else each.minimum for each in widths) + 1


def say(as_json: bool, text: str, **fields: object) -> None:
    """Print a result as text, or its fields as a line of JSON."""
    click.echo(said(as_json, text, **fields))


def said(as_json: bool, text: str, **fields: object) -> str:
    """Return a result as text, or its fields as a line of JSON."""
    return json.dumps(fields, default=str) if as_json else text


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar if standard error is a terminal; yield a function that sets how much is done."""
    to = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=to, transient=True, disable=not to.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def duration(context: click.Context, option: click.Parameter, value: str) -> float:
    """Convert a duration such as `2h` to seconds; the callback of an option."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", value, re.ASCII)
    if not found:
        raise click.BadParameter(f"{value!r} is not a duration such as 90s, 30m, 2h or 3d")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[found[2]]


def finish(found: object) -> None:
    """Exit with code 1 if something was found, and with 0 otherwise."""
    sys.exit(FOUND if found else 0)
