"""`delayed`: delayed tasks that wait at EventBridge Scheduler, and messages that it could not send."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from ...aws import error_code, is_missing
from ...brokers.sqs.delays import prefix_of
from ...commands import Failure
from ...dlq.sqs.queue import WAIT_SECONDS
from ...environment import find
from ...environment.sqs import Environment, named
from ...schedules import AT_SCHEDULER
from ...terminal import Group, console, finish, live_options, plain, say, table

OF_ONE_MESSAGE = ("InvalidMessageContents", "InvalidParameterValue")
"""Error codes of SQS that do not concern the other messages; nor does a queue that is missing.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html#API_SendMessage_Errors
"""


@click.group(name="delayed", cls=Group)
def command() -> None:
    """List, cancel or resend tasks that wait in schedules."""


def found(env: Environment, prefix: str = "") -> Iterator[dict[str, str]]:
    """Yield the tasks that wait at EventBridge Scheduler: name of the schedule, id, task and time.

    Args:
        env: the environment.
        prefix: what the names of the schedules begin with; empty for all.
    """
    for schedule in env.live_schedules(delayed=True, prefix=prefix):
        yield {"name": schedule["Name"], **_described(schedule)}


def _described(schedule: dict[str, Any]) -> dict[str, str]:
    headers = _headers(schedule["Target"]["Input"])
    due = schedule["ScheduleExpression"].removeprefix("at(").removesuffix(")")
    return {"id": str(headers.get("id", "")), "task": str(headers.get("task", "")), "due": f"{due}Z"}


def _headers(request: str) -> Mapping[str, Any]:
    """Return the headers of the message in a SendMessage request; none if there is no such message."""
    try:
        headers = json.loads(json.loads(request)["MessageBody"])["headers"]
    except (ValueError, KeyError, TypeError):
        return {}
    return headers if isinstance(headers, dict) else {}


@command.command("list", examples=("delayed list --environment production", "delayed list --json"))
@live_options
def list_(environment: str, as_json: bool) -> None:
    """List the tasks that wait, in no order; one request per task."""
    env = _with_delays(environment)
    if as_json:
        for each in found(env):
            click.echo(json.dumps(each))
        return
    made = table()
    for title in ("ID", "TASK", "DUE"):
        made.add_column(title, overflow="fold")
    for each in found(env):
        made.add_row(plain(each["id"]), plain(env.contract.short_name(each["task"])), plain(each["due"]))
    console().print(made) if made.row_count else click.echo("no delayed tasks")


@command.command("cancel", examples=("delayed cancel 2f1c9a44-0000-4000-8000-000000000000 --environment production",))
@click.argument("ids", nargs=-1, required=True)
@live_options
def cancel(ids: tuple[str, ...], environment: str, as_json: bool) -> None:
    """Cancel delayed tasks by their IDS.

    Their retries that wait are cancelled as well. Exits with 1 if one was not there.
    """
    env = _with_delays(environment)
    client = env.client("scheduler")
    group = env.contract.schedule_group_name(environment, delayed=True)
    cancelled = set()
    for each in (each for task_id in dict.fromkeys(ids) for each in [*found(env, prefix_of(task_id))]):
        if each["id"] in ids:
            try:
                client.delete_schedule(Name=each["name"], GroupName=group)
            except client.exceptions.ResourceNotFoundException:
                continue
            cancelled.add(each["id"])
            say(as_json, f"cancelled {each['task']}[{each['id']}], due {each['due']}", **each)
    missing = [task_id for task_id in ids if task_id not in cancelled]
    for task_id in missing:
        click.echo(f"{task_id} does not wait: it was sent, or cancelled, or never delayed", err=True)
    finish(missing)


@command.command("unsent", examples=("delayed unsent --environment production", "delayed unsent --resend"))
@click.option("--resend", is_flag=True, help="Send them to their queues, and delete them here.")
@live_options
def unsent(resend: bool, environment: str, as_json: bool) -> None:
    """List messages that EventBridge Scheduler could not send.

    They are those of delayed tasks and schedules. Exits with 1 if there are any.
    """
    env: Environment = find(environment)
    if not env.contract.uses_scheduler:
        raise Failure("contract.json has neither schedules nor long_delays")
    name = env.contract.schedule_dead_letter_queue_name(environment)
    with named(f"the queue {name}"):
        url = env.sqs.get_queue_url(QueueName=name)["QueueUrl"]
    held: list[str] = []
    left = 0
    try:
        while received := env.sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=WAIT_SECONDS,
            VisibilityTimeout=300,
            MessageAttributeNames=["All"],
        ).get("Messages"):
            held += [message["ReceiptHandle"] for message in received]
            for message in received:
                attributes = message.get("MessageAttributes", {})
                body = _body(message["Body"], attributes)
                headers = _headers(body)
                reason = attributes.get("ERROR_MESSAGE", {}).get("StringValue", "")
                fields = {"id": headers.get("id"), "task": headers.get("task"), "reason": reason}
                is_resent = resend and _send_again(env, body)
                if is_resent:
                    env.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                    held.remove(message["ReceiptHandle"])
                else:
                    left += 1
                text = f"{'resent ' if is_resent else ''}{fields['task']}[{fields['id']}] {reason}".rstrip()
                say(as_json, str(plain(text)), **fields)
    finally:
        for handle in held:
            env.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    finish(left)


def _body(body: str, attributes: Mapping[str, Any]) -> str:
    """Return the request in a dead-letter message, with the time for which it was made.

    It is unknown whether EventBridge Scheduler has replaced it there.
    https://docs.aws.amazon.com/scheduler/latest/UserGuide/configuring-schedule-dlq.html
    """
    due = attributes.get("SCHEDULED_TIME", {}).get("StringValue")
    return body.replace(AT_SCHEDULER, due) if due else body


def _send_again(env: Environment, body: str) -> bool:
    """Send a message to its queue; return whether SQS took it.

    Raises:
        Failure: it was not sent, for a reason that all messages have in common.
    """
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    try:
        env.sqs.send_message(**json.loads(body))
    except (ValueError, TypeError, ParamValidationError) as error:
        click.echo(f"a message is not a request to SQS, and stays where it is: {plain(error)}", err=True)
        return False
    except (ClientError, BotoCoreError) as error:
        code = error_code(error)
        if not (is_missing(error) or code in OF_ONE_MESSAGE):
            raise Failure(f"a message was not resent, and stays where it is: {code or error}") from error
        click.echo(f"a message was not resent, and stays where it is: {plain(error)}", err=True)
        return False
    return True


def _with_delays(environment: str) -> Environment:
    """Return an environment whose contract has long delays."""
    env: Environment = find(environment)
    if not env.contract.long_delays:
        raise Failure("contract.json has no long_delays, so EventBridge Scheduler delays no tasks")
    return env
