"""`schedules`: when the tasks of the contract's schedules are due, and sending one now."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import click

from .. import schedules, service
from ..commands import Failure
from ..environment import DEVELOPMENT, find
from ..terminal import Group, check_environment, console, json_option, plain, say, table


@click.group(name="schedules", cls=Group)
def command() -> None:
    """Show the schedules, or send the task of one now."""


@command.command("list", examples=("schedules list", "schedules list --environment production"))
@click.option(
    "--environment",
    default="",
    callback=check_environment,
    help="On SQS, also show the state of its schedules at AWS.",
)
@json_option
def list_(environment: str, as_json: bool) -> None:
    """Show when the tasks of schedules are due, in UTC.

    Without --environment, it needs no credentials.
    """
    contract = service.contract()
    rows = [schedules.described(contract, schedule) for schedule in contract.schedules]
    if environment == DEVELOPMENT:
        click.echo(f"in {DEVELOPMENT}, `make dev` sends the tasks of schedules", err=True)
        environment = ""
    if environment:
        if contract.broker == "rabbitmq":
            raise Failure("on RabbitMQ, the beat sends the tasks of schedules; leave out --environment")
        schedules.add_live(rows, find(environment))
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("contract.json has no schedules")
        return
    made = table()
    shown = ("name", "task", "queue", "when", *(["at_aws"] if environment else []))
    for title in (*shown, "next"):
        made.add_column(title.upper().replace("_", " "), overflow="fold")
    for row in rows:
        made.add_row(*(plain(row[field]) for field in shown), "\n".join(row["next"]))
    console().print(made)


@command.command("run", examples=("schedules run nightly",))
@click.argument("name")
@json_option
def run(name: str, as_json: bool) -> None:
    """Send the task of the schedule NAME now.

    It is sent whether the schedule is enabled or not. It needs the environment variables of the service, as
    `send` does.
    """
    from amqp.exceptions import AMQPError
    from botocore.exceptions import BotoCoreError, ClientError
    from kombu.exceptions import OperationalError

    schedule = service.contract().schedule(name)
    try:
        result = schedules.send(service.app(), schedule, datetime.now(timezone.utc))
    except (RuntimeError, BotoCoreError, ClientError, OperationalError, AMQPError) as error:
        raise Failure(f"nothing was sent: {str(error).strip()}") from error
    say(as_json, result.id, id=result.id, schedule=name)
