"""The command line of a service."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any

import click
from click.exceptions import MissingParameter, NoSuchCommand

from .. import options, service
from .. import worker as workers
from ..commands import Documented, Failure, Number, replace_unencodable
from ..contract import OPTION_NAMES
from ..contract.reading import shown
from ..durations import counted
from ..errors import SettingsError
from ..version import __version__

OPERATIONS = (
    *("adopt", "console", "contract", "cost", "delayed", "dlq", "doctor"),
    *("keys", "metrics", "queues", "schedules"),
)
"""The operator commands. Each is the `command` of a module of its name.

Commands whose options depend on the broker are in the broker's package.
"""


def module_of(command: str) -> str | None:
    """Return the module name of an operator command; None if the service does not have the command."""
    chosen = options.names()
    if command in OPTION_NAMES - chosen:
        return None
    for package in (__name__, *(f"{__name__}.{name}" for name in chosen)):
        if command in OPERATIONS and _is_there(f"{package}.{command}"):
            return f"{package}.{command}"
    return None


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # The package does not exist either.
        return False


class Command(click.Group):
    """A group that loads operator commands on demand, and reports user errors without a traceback."""

    command_class = Documented

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *filter(module_of, OPERATIONS)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None if there is none of that name; operator commands are imported here."""
        own = super().get_command(ctx, cmd_name)
        if own or not (module := module_of(cmd_name)):
            return own
        command: click.Command = importlib.import_module(module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named; the error suggests operator commands, too.

        Raises:
            NoSuchCommand: there is none of that name.
        """
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            raise NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write how a shell completes commands and options.

        https://click.palletsprojects.com/en/stable/shell-completion/
        """
        name = str(ctx.info_name)
        if " " not in name:  # A shell completes no `python -m …`.
            with formatter.section("Completion in bash; in zsh, replace bash_source with zsh_source"):
                formatter.write(f'  eval "$(_{name.replace("-", "_").upper()}_COMPLETE=bash_source {name})"\n')

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command; report user errors as `Failure`."""
        try:
            return super().invoke(ctx)
        except MissingParameter as error:
            if error.param and error.param.name == "environment":
                raise MissingParameter(_development(), error.ctx, error.param) from None
            raise
        except (ValueError, LookupError, OSError) as error:
            if not _is_user_error(error):
                raise
            text = str(error)
            if isinstance(error, SettingsError) and (hint := _development()):
                text += f"\n{hint}"
            raise Failure(text) from error


def _development() -> str:
    """Return how to use the environment of `make dev`; empty if it does not run in this folder."""
    file = Path(".env.development")  # Written by celery_aws.dev, which images do not have.
    return f"For the environment of `make dev`, run: . ./{file}" if file.exists() else ""


def _is_user_error(error: BaseException) -> bool:
    """Return whether an error is due to the user's input, and not a bug."""
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return not any(service.owns(frame) for frame, _ in walk_tb(error.__traceback__))
    return type(error).__module__.startswith(f"{__package__.partition('.')[0]}.")


@click.group(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s runs on celery_aws %(version)s")
def main() -> None:
    """Run, use and operate the service that contract.json describes."""


@main.command(
    context_settings={"ignore_unknown_options": True}, examples=("worker {worker}", "worker {worker} --loglevel DEBUG")
)
@click.argument("name")
@click.argument("celery_arguments", nargs=-1, type=click.UNPROCESSED)
def worker(name: str, celery_arguments: tuple[str, ...]) -> None:
    """Run the worker NAME until Ctrl-C or SIGTERM.

    Further arguments are passed to `celery worker`.
    """
    workers.start(name, celery_arguments)


@main.command(examples=("beat",))
def beat() -> None:
    """Send the tasks of schedules until Ctrl-C or SIGTERM.

    There must be one only: two of them send each task twice.
    """
    from .. import beat as beats

    beats.start()


@main.command(
    context_settings={"ignore_unknown_options": True},
    examples=('send {module}.send_invoice "customer 7" 250 --wait 10', "send {module}.send_invoice 7 --countdown 60"),
)
@click.argument("task")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--group", help="Message group: for order on FIFO queues, for fairness on others.")
@click.option("--countdown", type=Number(0), metavar="SECONDS", help="Delay the task.")
@click.option("--wait", type=Number(0), metavar="SECONDS", help="Wait for the result, and print it.")
def send(task: str, arguments: tuple[str, ...], group: str | None, countdown: float | None, wait: float | None) -> None:
    """Send one task to its queue.

    TASK is `<module>.<function>`. ARGUMENTS are JSON values, or plain text.
    """
    from amqp.exceptions import AMQPError
    from botocore.exceptions import BotoCoreError, ClientError
    from celery import states
    from celery.backends.base import DisabledBackend
    from kombu.exceptions import OperationalError

    from ..aws import explanation

    service.contract()  # Report broken rules before missing environment variables.
    app = service.app()
    if wait is not None and isinstance(app.backend, DisabledBackend):
        raise Failure("nothing was sent: this service has no result backend; leave out --wait")
    try:
        result = app.send(task, *map(_value, arguments), group=group, countdown=countdown)
    # TypeError: the task has other parameters.
    except (TypeError, BotoCoreError, ClientError, OperationalError, AMQPError) as error:
        at_aws = error.__cause__ if isinstance(error.__cause__, BotoCoreError) else error  # kombu wraps it.
        raise Failure(f"nothing was sent: {explanation(at_aws) or str(error).strip()}") from error
    click.echo(result.id)
    if wait is not None:
        state, value = _outcome(result, wait)
        if state != states.SUCCESS:
            tried = f"; so far: {value!r}" if state == states.RETRY else ""
            is_over = state in states.READY_STATES
            late = f"no result after {counted(f'{wait:g}', 'second')}{tried}"
            raise Failure(f"the task failed: {value!r}" if is_over else late)
        replace_unencodable()
        click.echo(shown(value))


def _outcome(result: Any, seconds: float) -> tuple[str, Any]:
    """Wait for a task, and return its state and its return value or exception.

    Raises:
        Failure: the result backend failed.
    """
    from celery.exceptions import TimeoutError as NoResultYet

    from ..aws import explanation

    try:
        with contextlib.suppress(NoResultYet):
            result.get(timeout=seconds, propagate=False)
        return result.state, result.info
    except Exception as error:  # Each result backend has errors of its own; a task's is not raised.
        why = explanation(error) or " ".join(str(error.__cause__ or error).split())  # Celery wraps those of Redis.
        raise Failure(f"the task was sent, but its result cannot be read from {result.backend.place}: {why}") from error


@main.command(examples=("health {worker}", "health Beat"))
@click.argument("worker")
def health(worker: str) -> None:
    """Check whether a worker on this machine is alive.

    WORKER is the name of a worker, or Beat. Exits with 1 if it is not alive. It makes no requests, so it can be
    a container's health check.
    """
    from ..health import NotAliveError, check

    try:
        click.echo(f"alive {check(service.contract(), worker):.0f} s ago")
    except NotAliveError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


def run_command(package: str) -> None:
    """Run the command line of a service, and exit.

    Args:
        package: the service's package.
    """
    service.use(package)
    try:
        main()
    except Exception as error:  # noqa: BLE001 - raised again
        if broken := _broken_line(error):
            failure = Failure(broken)
            failure.show()
            sys.exit(failure.exit_code)
        raise error.with_traceback(_in_service(error.__traceback__))  # noqa: B904 - the same error


def _broken_line(error: Exception) -> str:
    """Return the line of the service that cannot be compiled or imported, and why; empty for other errors."""
    walked = walk_tb(error.__traceback__)
    frames = [(frame.f_code.co_filename, line) for frame, line in walked if service.owns(frame)]
    if isinstance(error, SyntaxError) and str(error.filename).endswith(".py"):
        file, line, why = str(error.filename), error.lineno, error.msg
    elif isinstance(error, ImportError) and frames:
        (file, line), why = frames[-1], str(error)
    else:
        return ""
    path, here = Path(file), Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}, line {line}: {why}"


def _in_service(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first frame in the service's package on, or all of it if there is none.

    Dozens of frames of click, Celery and importlib would be above the line of a module that cannot be imported.
    """
    inner = traceback
    while inner and not service.owns(inner.tb_frame):
        inner = inner.tb_next
    return inner or traceback


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
