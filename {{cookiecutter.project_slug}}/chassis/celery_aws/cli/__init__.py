"""The command line of a service."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from typing import Any

import click

from .. import contract as contracts
from .. import options, service
from .. import worker as workers
from ..commands import Failure, Number
from ..contract import OPTION_NAMES
from ..version import __version__

OPERATIONS = ("cost", "dlq", "doctor", "keys", "metrics", "queues")
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

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command; report user errors as `Failure`."""
        try:
            return super().invoke(ctx)
        except (ValueError, LookupError, OSError) as error:
            if not _is_user_error(error):
                raise
            raise Failure(str(error.args[0]) if isinstance(error, KeyError) else str(error)) from error


def _is_user_error(error: BaseException) -> bool:
    """Return whether an error is due to the user's input, and not a bug."""
    is_builtin = isinstance(error, (KeyError, FileNotFoundError, PermissionError))
    return is_builtin or type(error).__module__.startswith(f"{__package__.partition('.')[0]}.")


@click.group(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s runs on celery_aws %(version)s")
def main() -> None:
    """Run, use and operate the service that contract.json describes."""


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("queue")
@click.argument("celery_arguments", nargs=-1, type=click.UNPROCESSED)
def worker(queue: str, celery_arguments: tuple[str, ...]) -> None:
    """Run a worker of QUEUE until Ctrl-C or SIGTERM.

    Further arguments are passed to `celery worker`.
    """
    workers.start(queue, celery_arguments)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("task")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--group", help="Message group: for order on FIFO queues, for fairness on others.")
@click.option("--countdown", type=Number(0), metavar="SECONDS", help="Delay the task.")
@click.option("--wait", type=Number(0), metavar="SECONDS", help="Wait for the result, and print it.")
def send(task: str, arguments: tuple[str, ...], group: str | None, countdown: float | None, wait: float | None) -> None:
    """Send TASK (`<module>.<function>`) with ARGUMENTS: JSON values, or plain text.

    Example: send high.send_invoice "customer 7" 250 --wait 10
    """
    from amqp.exceptions import AMQPError
    from botocore.exceptions import BotoCoreError, ClientError
    from celery import states
    from celery.backends.base import DisabledBackend
    from celery.exceptions import TimeoutError as NoResultYet
    from kombu.exceptions import OperationalError

    service.contract()  # Report broken rules before missing environment variables.
    app = service.app()
    if wait is not None and isinstance(app.backend, DisabledBackend):
        raise Failure("nothing was sent: this service has no result backend; leave out --wait")
    try:
        result = app.send(task, *map(_value, arguments), group=group, countdown=countdown)
    # TypeError: the task has other parameters; RuntimeError: the result backend is unavailable.
    except (TypeError, RuntimeError, BotoCoreError, ClientError, OperationalError, AMQPError) as error:
        raise Failure(f"nothing was sent: {str(error).strip()}") from error
    click.echo(result.id)
    if wait is not None:
        try:
            value = result.get(timeout=wait, propagate=False)
        except NoResultYet as error:
            tried = f"; so far: {result.info!r}" if result.state == states.RETRY else ""
            raise Failure(f"no result after {wait:g} seconds{tried}") from error
        if not result.successful():
            raise Failure(f"the task failed: {value!r}")
        click.echo(json.dumps(value, default=str))


@main.command()
@click.argument("queue")
def health(queue: str) -> None:
    """Check whether the worker of QUEUE on this machine is alive; exit with 1 if not.

    It makes no requests, so it can be a container's health check.
    """
    from ..health import NotAliveError, check

    held = service.contract()
    try:
        click.echo(f"alive {check(held, held.queue(queue)):.0f} s ago")
    except NotAliveError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


@main.command()
@click.option("--rules", is_flag=True, help="Show all rules instead, as in docs/timeouts.md.")
def contract(rules: bool) -> None:
    """Check contract.json, and show the limits of each queue."""
    held = service.contract()
    if rules:
        for rule in (*contracts.SERVICE_RULES, *contracts.QUEUE_RULES):
            if rule.is_for(held.broker):
                click.echo(f"| `{rule.field}` | {rule.says} |")
        return
    for queue in held.queues:
        click.echo(
            f"{queue.name}: soft limit {queue.soft_limit_seconds} s < hard limit "
            f"{queue.hard_limit_seconds} s < visibility timeout {queue.visibility_timeout_seconds} s, "
            f"dead-lettered after {queue.max_receive_count} attempts "
            f"({queue.seconds_to_dead_letter} s)"
        )


def run_command(package: str) -> None:
    """Run the command line of a service, and exit.

    Args:
        package: the service's package.
    """
    service.use(package)
    main()


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
