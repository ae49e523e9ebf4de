"""Compares an environment on SQS with the contract, with advice for each difference.

The checks change nothing and send no messages.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from functools import partial
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from ..aws import error_code, explanation, is_denied, is_missing
from ..brokers.sqs.control_table import query
from ..commands import Failure
from ..contract import Contract, Queue, Schedule
from ..contract.schedules import due_times, expression_of
from ..durations import age
from ..environment.sqs import Environment
from ..health import NotAliveError, check
from ..pausing import Pause
from ..pausing import sqs as pausing
from ..queues.sqs.measured import EMPTY_RECEIVES, RECEIVED, RECENT_SECONDS, read
from ..schedules import AT_SCHEDULER, arguments
from .findings import Finding, clock, failed, is_paused, orphan, result_findings, unknown, well, wrong

CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "D101": "AWS accepts the credentials",
        "D102": "QUEUE_URL_BASE, if set, has the account of the credentials",
        "D103": "QUEUE_URL_BASE and AWS_DEFAULT_REGION, if set, have the region of the contract",
        "D104": "the clock is correct",
        "D201": "the queue exists",
        "D202": "its dead-letter queue exists",
        "D203": "the visibility timeout is that of the contract",
        "D204": "the retention is that of the contract",
        "D205": "the long poll's wait time is that of the contract",
        "D206": "the dead-letter queue and the maximum receive count are those of the contract",
        "D207": "the maximum message size is at least that of the contract",
        "D208": "the queue does not delay messages",
        "D209": "the queue is encrypted",
        "D210": "dead-letter queue: the retention is that of the contract",
        "D211": "dead-letter queue: it is encrypted",
        "D212": "dead-letter queue: its redrive allow policy allows the queue",
        "D213": "every queue of this service and environment at SQS is in the contract",
        "D214": "the schedules at EventBridge Scheduler are those of the contract",
        "D215": "the table of remote control can be read",
        "D301": "the role has its permissions",
        "D401": "the result backend is reachable",
        "D402": "results expire",
        "D501": "a worker polls the queue",
    }
)
"""All checks in their order, by code."""

APPLY = "apply Terraform, or change contract.json"
ASK_OWNER = "ask the owner of the queue, or change contract.json"
"""The same for a queue that Terraform does not manage."""

CREATE: Mapping[bool, str] = MappingProxyType(
    {
        False: 'ask the owner of the queue to create it, correct queue_name, or remove "managed": false',
        True: "ask the owner of the queue for a dead-letter queue, and set dead_letter_queue_name to its name",
    }
)
"""What to do if a queue that Terraform does not manage, or its dead-letter queue, does not exist."""

Probe = Callable[[Any, str, str], object]

_NO_HANDLE = "doctor-has-no-receipt-handle"


def _send(sqs: Any, url: str, arn: str) -> object:
    # The delay is too long, so SQS refuses the message even with the permission.
    return sqs.send_message(QueueUrl=url, MessageBody="doctor", DelaySeconds=901)


def _receive(sqs: Any, url: str, arn: str) -> object:
    return sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=0)


def _delete(sqs: Any, url: str, arn: str) -> object:
    return sqs.delete_message(QueueUrl=url, ReceiptHandle=_NO_HANDLE)


def _change_visibility(sqs: Any, url: str, arn: str) -> object:
    return sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=_NO_HANDLE, VisibilityTimeout=0)


def _start_move(sqs: Any, url: str, arn: str) -> object:
    return sqs.start_message_move_task(SourceArn=arn, DestinationArn=f"{arn.removesuffix('.fifo')}-doctor-nowhere")


def _list_moves(sqs: Any, url: str, arn: str) -> object:
    return sqs.list_message_move_tasks(SourceArn=arn)


def _cancel_move(sqs: Any, url: str, arn: str) -> object:
    return sqs.cancel_message_move_task(TaskHandle="doctor-has-no-task")


PROBES: Mapping[str, Probe] = MappingProxyType(
    {
        "SendMessage": _send,
        "ReceiveMessage": _receive,
        "DeleteMessage": _delete,
        "ChangeMessageVisibility": _change_visibility,
        "StartMessageMoveTask": _start_move,
        "ListMessageMoveTasks": _list_moves,
        "CancelMessageMoveTask": _cancel_move,
    }
)
"""A request per action that SQS always refuses; the error tells whether the role has the permission."""

ROLES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType(
    {
        "operator": (("SendMessage",), tuple(PROBES)),
        "worker": (("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "SendMessage"), ("SendMessage",)),
        "producer": (("SendMessage",), ()),
    }
)
"""The actions that each role needs on every queue, and on every dead-letter queue."""


def findings(env: Environment, role: str) -> Iterator[Finding]:
    """Run all checks.

    Args:
        env: the environment.
        role: the role whose permissions are checked; one of `ROLES`.
    """
    account, found = _credentials(env)
    yield from found
    if not account:
        return  # All other checks would fail for the same reason.
    yield from _variables(env, account)
    existing: list[Queue] = []
    for queue in env.contract.queues:
        try:
            live, dead = env.attributes(queue), env.attributes(queue, dead=True)
        except Exception as error:  # noqa: BLE001 - the other checks continue
            yield _missing(env, queue, error)
            continue
        existing.append(queue)
        yield well("D201", queue.name, live["QueueArn"])
        yield well("D202", queue.name, dead["QueueArn"])
        yield from _attributes(env, queue, live)
        yield from _dead_letter_attributes(env, queue, live, dead)
        yield from _permissions(env, queue, role, live["QueueArn"], dead["QueueArn"])
    yield from _orphans(env)
    yield from _schedules(env)
    yield from _control(env, role)
    yield from result_findings(env.contract, env.client)
    yield from _workers(env, existing)


def _credentials(env: Environment) -> tuple[str, list[Finding]]:
    """D101, D104. Return the account, empty if the credentials are not accepted, and the findings."""
    from botocore.exceptions import BotoCoreError, ClientError

    account = ""
    try:
        answer = env.client("sts").get_caller_identity()
        account, answered = answer["Account"], answer
        found = well("D101", "credentials", f"account {account}, {answer['Arn']}")
    except ClientError as error:
        answered = error.response
        if answered["ResponseMetadata"].get("HTTPStatusCode", 0) >= 500:
            return "", [unknown("D101", "credentials", explanation(error), "try again in a minute")]
        found = wrong("D101", "credentials", explanation(error), "log in again; fix D104 first if it failed, too")
    except BotoCoreError as error:
        return "", [unknown("D101", "credentials", explanation(error), "log in, or check the network")]
    date = answered.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return account, [found, clock(date, time.time())] if date else [found]


def _variables(env: Environment, account: str) -> Iterator[Finding]:
    """D102, D103."""
    region = env.contract.region
    base = os.environ.get("QUEUE_URL_BASE", "")
    if base:
        given = base.rpartition("/")[2]
        if given == account:
            yield well("D102", "QUEUE_URL_BASE", account)
        else:
            advice = "log in to the other account, or correct the variable"
            says = f"it has account {given}, the credentials are for {account}"
            yield wrong("D102", "QUEUE_URL_BASE", says, advice)
    host = urlsplit(base).hostname or ""
    named = {"AWS_DEFAULT_REGION": os.environ.get("AWS_DEFAULT_REGION", "")}
    if host.startswith("sqs."):  # The host of an emulator is different.
        named["QUEUE_URL_BASE"] = host.split(".")[1]
    for variable, given in named.items():
        if given == region:
            yield well("D103", variable, region)
        elif given:
            yield wrong("D103", variable, f"{given}, but the contract has {region}", "correct the variable")


def _missing(env: Environment, queue: Queue, error: Exception) -> Finding:
    """D201 or D202: a queue whose attributes could not be read."""
    is_dead = env.name(queue, dead=False) in env._urls
    code, name = ("D202", env.name(queue, dead=True)) if is_dead else ("D201", env.name(queue))
    reason = explanation(error)
    if not reason:
        raise error
    if is_missing(error):
        advice = "apply Terraform" if queue.managed else CREATE[is_dead]
        return wrong(code, queue.name, f"there is no queue {name} in {env.contract.region}", advice)
    return unknown(code, queue.name, reason, "use credentials with the permission")


def _attributes(env: Environment, queue: Queue, live: Mapping[str, str]) -> Iterator[Finding]:
    """D203 to D209: the queue itself."""
    wanted = (
        ("D203", "VisibilityTimeout", queue.visibility_timeout_seconds, "visibility_timeout_seconds"),
        ("D204", "MessageRetentionPeriod", queue.retention_seconds, "retention_seconds"),
        ("D205", "ReceiveMessageWaitTimeSeconds", env.contract.wait_time_seconds, "wait_time_seconds"),
    )
    # Of a queue that is not managed, workers state the visibility timeout with each receive.
    for code, attribute, value, field in wanted if queue.managed else wanted[1:]:
        yield _equal(code, queue, attribute, live.get(attribute), value, field)
    policy = json.loads(live.get("RedrivePolicy") or "{}")
    target, count = policy.get("deadLetterTargetArn", "no queue"), int(policy.get("maxReceiveCount", 0))
    name = env.name(queue, dead=True)
    says = f"dead-letters to {target.rpartition(':')[2]} after {count} receives"
    if target.endswith(f":{name}") and count == queue.max_receive_count:
        yield well("D206", queue.name, says)
    else:
        says += f"; the contract has {name} after {queue.max_receive_count}"
        yield wrong("D206", queue.name, says, _remedy(queue))
    size = int(live.get("MaximumMessageSize", 0))
    largest = env.contract.max_message_bytes
    if size >= largest:
        yield well("D207", queue.name, f"{size:,} bytes")
    else:
        advice = f"set its maximum message size to max_message_bytes, {largest:,}"
        yield wrong("D207", queue.name, f"its maximum message size is {size:,} bytes", advice)
    yield _equal("D208", queue, "DelaySeconds", live.get("DelaySeconds", "0"), 0, "")
    yield _encrypted("D209", queue, live)


def _dead_letter_attributes(
    env: Environment, queue: Queue, live: Mapping[str, str], dead: Mapping[str, str]
) -> Iterator[Finding]:
    """D210 to D212: the dead-letter queue."""
    attribute, field = "MessageRetentionPeriod", "dead_letter_retention_seconds"
    yield _equal("D210", queue, attribute, dead.get(attribute), env.contract.dead_letter_retention_seconds, field)
    yield _encrypted("D211", queue, dead)
    policy = json.loads(dead.get("RedriveAllowPolicy") or "{}")
    permission = policy.get("redrivePermission", "allowAll")
    if permission == "allowAll" or live["QueueArn"] in policy.get("sourceQueueArns", []):
        yield well("D212", queue.name, permission)
    else:
        yield wrong(
            "D212", queue.name, f"its redrive allow policy is {permission}, without {queue.name}", _remedy(queue)
        )


def _remedy(queue: Queue) -> str:
    return APPLY if queue.managed else ASK_OWNER


def _equal(code: str, queue: Queue, attribute: str, found: str | None, wanted: int, field: str) -> Finding:
    if found is not None and int(found) == wanted:
        return well(code, queue.name, f"{attribute} {wanted}")
    says = f"{attribute} is {found}, {field or 'it should be'} {wanted}"
    return wrong(code, queue.name, says, _remedy(queue))


def _encrypted(code: str, queue: Queue, live: Mapping[str, str]) -> Finding:
    if live.get("KmsMasterKeyId"):
        return well(code, queue.name, "with a KMS key")
    if live.get("SqsManagedSseEnabled") == "true":
        return well(code, queue.name, "by SQS")
    return wrong(code, queue.name, "messages are not encrypted at rest", _remedy(queue))


def _permissions(env: Environment, queue: Queue, role: str, arn: str, dead_arn: str) -> Iterator[Finding]:
    """D301: probe the permissions with requests that SQS always refuses."""
    for dead, actions in zip((False, True), ROLES[role], strict=True):
        url, probed = env.url(queue, dead=dead), dead_arn if dead else arn
        probes = {action: partial(PROBES[action], env.sqs, url, probed) for action in actions}
        yield from _allowed(f"{queue.name} dlq" if dead else queue.name, role, probes)


def _allowed(subject: str, role: str, probes: Mapping[str, Callable[[], object]]) -> Iterator[Finding]:
    """D301 of some actions, each with a request that AWS always refuses."""
    missing, unclear = [], []
    for action, probe in probes.items():
        denied, reason = _probe(probe)
        missing += [action] if denied else []
        unclear += [reason] if reason else []
    if missing:
        listed = ", ".join(missing)
        yield wrong("D301", subject, f"{role} may not {listed}", f"attach the policy of the {role} to the role")
    if unclear:
        yield unknown("D301", subject, unclear[0], "try again")
    if probes and not missing and not unclear:
        yield well("D301", subject, f"{role} may {', '.join(probes)}")


def _probe(probe: Callable[[], object]) -> tuple[bool, str]:
    """Return whether an action is denied, and the error if that could not be determined."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        probe()
    except ClientError as error:
        return is_denied(error), ""
    except BotoCoreError as error:
        return False, str(error)
    return False, ""


def _orphans(env: Environment) -> Iterator[Finding]:
    """D213: queues that were removed from the contract or renamed, but not deleted."""
    known = {env.name(queue, dead=dead) for queue in env.contract.queues for dead in (False, True)}
    if env.contract.uses_scheduler:
        known.add(env.contract.schedule_dead_letter_queue_name(env.environment))
    try:
        urls = env.urls_at_sqs()
    except Exception as error:
        if not (reason := explanation(error)):
            raise
        yield unknown("D213", "queues", reason, "use credentials with the permission sqs:ListQueues")
        return
    found = [_orphan(env, name, url) for name, url in urls.items() if name not in known]
    orphans = [finding for finding in found if finding]
    yield from orphans or [well("D213", "queues", "all are in the contract")]


def _orphan(env: Environment, name: str, url: str) -> Finding | None:
    """D213 of one queue; None if it is being deleted, which takes SQS up to a minute.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_DeleteQueue.html
    """
    short = name.removeprefix(env.queue_name_prefix).removesuffix(".fifo")
    counts = {
        "ApproximateNumberOfMessages": "waiting",
        "ApproximateNumberOfMessagesNotVisible": "in flight",
        "ApproximateNumberOfMessagesDelayed": "delayed",
    }
    try:
        found = env.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(counts))["Attributes"]
    except Exception as error:
        if not (reason := explanation(error)):
            raise
        return None if is_missing(error) else orphan(short, name, {}, reason)
    return orphan(short, name, {state: int(found[count]) for count, state in counts.items()})


def _schedules(env: Environment) -> Iterator[Finding]:
    """D214: missing schedules, others, and those that are due at other times or send something else."""
    try:
        live = {each["Name"]: each for each in env.live_schedules()}
    except Exception as error:
        if not (reason := explanation(error)):
            raise
        # Without schedules, their group is missing, and operators need no permission for it.
        if env.contract.schedules and error_code(error) != "ResourceNotFoundException":
            yield unknown("D214", "schedules", reason, "use credentials with the permission scheduler:ListSchedules")
            return
        live = {}
    if not live and not env.contract.schedules:
        yield well("D214", "schedules", "the contract has none")
        return
    if not live and os.environ.get("AWS_ENDPOINT_URL"):
        yield well("D214", "schedules", "an emulator has none; `make dev` sends what is due")
        return
    for schedule in env.contract.schedules:
        wanted = {
            "ScheduleExpression": expression_of(schedule),
            "ScheduleExpressionTimezone": schedule.timezone,
            "State": "ENABLED" if schedule.enabled else "DISABLED",
            **_sent(env.contract, schedule),
        }
        found = live.pop(schedule.name, None)
        if found is None and next(due_times(schedule, datetime.now(timezone.utc)), None) is None:
            yield well("D214", schedule.name, f"{schedule.at} is over")
        elif found is None:
            yield wrong("D214", schedule.name, "the schedule does not exist", APPLY)
        elif says := _differences({**found, **_sends(found)}, wanted):
            yield wrong("D214", schedule.name, says, APPLY)
        else:
            yield well("D214", schedule.name, found["ScheduleExpression"])
    for name in live:
        yield wrong("D214", name, "the schedule is not in the contract, and sends its task", APPLY)


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    if "task" not in found:
        return "it does not send a message of Celery"
    names = [name for name, value in wanted.items() if found.get(name) != value]
    return ", ".join(f"{name} is {found.get(name)!r} instead of {wanted[name]!r}" for name in names)


def _sent(contract: Contract, schedule: Schedule) -> dict[str, Any]:
    """Return what a schedule of the contract sends."""
    return {
        "task": contract.full_name(schedule.task),
        "arguments": [*arguments(schedule, AT_SCHEDULER)],
        "queue": contract.celery_name(contract.queue_of(schedule)),
        "group": schedule.group,
    }


def _sends(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a schedule at EventBridge Scheduler sends; nothing if it is no message of Celery."""
    try:
        request = json.loads(found["Target"]["Input"])
        message = json.loads(request["MessageBody"])
        return {
            "task": message["headers"]["task"],
            "arguments": json.loads(message["body"])[:2],
            "queue": message["properties"]["delivery_info"]["routing_key"],
            "group": request.get("MessageGroupId", ""),
        }
    except (ValueError, KeyError, TypeError):
        return {}


def _control(env: Environment, role: str) -> Iterator[Finding]:
    """D215, and D301 for the table of `remote_control`: with writes of an item that must exist, and never does."""
    subject, table = "remote control", env.control_table
    if not env.contract.remote_control:
        yield well("D215", subject, "the contract has none")
        return
    dynamodb = env.client("dynamodb")
    key = {"scope": {"S": "doctor"}, "key": {"S": "doctor"}}
    refused = {"TableName": table, "ConditionExpression": "attribute_exists(expires_at)"}
    probes = {"PutItem": partial(dynamodb.put_item, Item=key, **refused)}
    if role != "producer":  # Which only revokes tasks.
        probes["DeleteItem"] = partial(dynamodb.delete_item, Key=key, **refused)
        try:
            dynamodb.query(**query(table, "doctor"))
        except Exception as error:  # noqa: BLE001 - `failed` raises what it cannot explain
            yield failed("D215", subject, error, "apply Terraform, or correct the permissions")
            return
        yield well("D215", subject, f"table {table}")
    yield from _allowed(subject, role, probes)


def _paused(env: Environment) -> dict[str, Pause]:
    """Return the queues that are paused; none if the table cannot be read, which D215 is about."""
    try:
        return pausing.paused(env)
    except Failure:  # It does not exist.
        return {}
    except Exception as error:
        if not explanation(error):
            raise
        return {}


def _workers(env: Environment, queues: list[Queue]) -> Iterator[Finding]:
    """D501: CloudWatch has counted polls, or a worker on this machine has a liveness file."""
    try:
        series = read(env, queues, [EMPTY_RECEIVES, RECEIVED], RECENT_SECONDS, 60) if queues else {}
    except Exception as error:
        if not (reason := explanation(error)):
            raise
        yield unknown("D501", "CloudWatch", reason, "use credentials with the permission cloudwatch:GetMetricData")
        series = {}
    paused = _paused(env)
    for queue in queues:
        if queue.name in paused:
            yield is_paused(queue.name, paused[queue.name])
            continue
        worker = env.contract.worker_of(queue)
        try:
            yield well("D501", queue.name, f"on this machine, {check(env.contract, worker.name):.0f} s ago")
            continue
        except NotAliveError:
            pass
        if not series:
            continue
        found = [series[queue.name, metric.name].values for metric in (EMPTY_RECEIVES, RECEIVED)]
        receives = sum(value or 0 for values in found for value in values)
        waiting = env.depth(queue)
        if receives:
            yield well("D501", queue.name, f"{receives:.0f} receives in the last {age(RECENT_SECONDS)}")
        elif not worker.min and not waiting:
            yield well("D501", queue.name, "scaled to zero, no messages")
        else:
            says = f"no receives in the last {age(RECENT_SECONDS)}; messages waiting: {waiting}"
            yield wrong("D501", queue.name, says, "check the workers' logs, and the desired number of workers")
