"""`console`: a web page of the queues, dead-letter messages, tasks and schedules, on this machine only."""

from __future__ import annotations

import sys
import webbrowser

import click

from .. import service
from ..commands import Failure
from ..environment import find
from ..terminal import Command, environment_option


@click.command(
    name="console",
    cls=Command,
    examples=("console --environment production --read-only", "console --port 8765 --no-open"),
)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Port to listen on; default: a free one.")
@click.option("--read-only", is_flag=True, help="Refuse everything that changes something.")
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@environment_option
def command(port: int, read_only: bool, no_open: bool, environment: str) -> None:
    """Show queues, messages and tasks in a browser.

    It runs until Ctrl-C. It listens on this machine only, and prints its address, which contains a password.
    It can do what these credentials allow.
    """
    service.contract()
    try:
        from ..console import Console
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("flask", "jinja2", "werkzeug"):
            raise
        raise Failure(f"the console needs Flask: pip install '{service.contract().service}[console]'") from None
    with Console(find(environment), port, read_only=read_only) as console:
        click.echo(f"The console listens at {console.address}")
        if sys.stdout.isatty() and not no_open:
            webbrowser.open(console.address)
        try:
            console.serve()
        except KeyboardInterrupt:
            return
