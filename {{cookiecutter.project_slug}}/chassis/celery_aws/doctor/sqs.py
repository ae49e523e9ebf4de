"""Compares the live world with the contract, and says what to do about each difference.

It changes nothing and sends no message.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from ..contract import Queue
from ..environment.sqs import Environment
from ..health import NotAliveError, check
from ..queues.sqs.measured import EMPTY_RECEIVES, RECEIVED, RECENT_SECONDS, read
from ..terminal import age, explanation, is_denied, is_missing
from .findings import Finding, clock, orphan, result_findings, unknown, well, wrong

CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "D101": "AWS takes the credentials",
        "D102": "QUEUE_URL_BASE, if set, is of the credentials' account",
        "D103": "QUEUE_URL_BASE and AWS_DEFAULT_REGION, if set, are of the contract's region",
        "D104": "the clock is right",
        "D201": "the queue is there",
        "D202": "its dead-letter queue is there",
        "D203": "visibility timeout as in the contract",
        "D204": "retention as in the contract",
        "D205": "length of a long poll as in the contract",
        "D206": "dead-lettered into its own queue, after as many deliveries as in the contract",
        "D207": "takes messages as large as in the contract",
        "D208": "delays no message",
        "D209": "encrypted",
        "D210": "dead-letter queue: retention as in the contract",
        "D211": "dead-letter queue: encrypted",
        "D212": "dead-letter queue: takes dead letters of the queue",
        "D213": "every queue of this service and environment at SQS is in the contract",
        "D301": "the role may do what it must",
        "D401": "the result store can be reached",
        "D402": "results expire",
        "D501": "a worker polls",
    }
)
"""Every check by its code, in the order they are made."""

APPLY = "apply Terraform again, or change contract.json if the world is right"

Probe = Callable[[Any, str, str], object]

_NO_HANDLE = "doctor-has-no-receipt-handle"


def _send(sqs: Any, url: str, arn: str) -> object:
    # No message can be delayed for so long, so SQS refuses it if the role may send.
    return sqs.send_message(QueueUrl=url, MessageBody="doctor", DelaySeconds=901)


def _receive(sqs: Any, url: str, arn: str) -> object:
    return sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=0)


def _delete(sqs: Any, url: str, arn: str) -> object:
    return sqs.delete_message(QueueUrl=url, ReceiptHandle=_NO_HANDLE)


def _hide(sqs: Any, url: str, arn: str) -> object:
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
        "ChangeMessageVisibility": _hide,
        "StartMessageMoveTask": _start_move,
        "ListMessageMoveTasks": _list_moves,
        "CancelMessageMoveTask": _cancel_move,
    }
)
"""Requests that SQS refuses in any case: for what they ask if the role may make them, or else for the role."""

ROLES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType(
    {
        "operator": (("SendMessage",), tuple(PROBES)),
        "worker": (("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "SendMessage"), ("SendMessage",)),
        "producer": (("SendMessage",), ()),
    }
)
"""What each role must be allowed: on every queue, and on every dead-letter queue."""


def findings(here: Environment, role: str) -> Iterator[Finding]:
    """Make all checks, one after the other.

    Args:
        here: the environment.
        role: whose credentials these are: one of `ROLES`.
    """
    account, found = _credentials(here)
    yield from found
    if not account:
        return  # Every other check would say the same.
    yield from _variables(here, account)
    there: list[Queue] = []
    for queue in here.contract.queues:
        try:
            live, dead = here.attributes(queue), here.attributes(queue, dead=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
            yield _missing(here, queue, error)
            continue
        there.append(queue)
        yield well("D201", queue.name, live["QueueArn"])
        yield well("D202", queue.name, dead["QueueArn"])
        yield from _attributes(here, queue, live)
        yield from _dead_letter_attributes(here, queue, live, dead)
        yield from _rights(here, queue, role, live["QueueArn"], dead["QueueArn"])
    yield from _orphans(here)
    yield from result_findings(here.contract, here.client)
    yield from _workers(here, there)


def _credentials(here: Environment) -> tuple[str, list[Finding]]:
    """D101, D104; return the account as well, if the credentials are taken."""
    from botocore.exceptions import BotoCoreError, ClientError

    account = ""
    try:
        answer = here.client("sts").get_caller_identity()
        account, answered = answer["Account"], answer
        found = well("D101", "credentials", f"account {account}, {answer['Arn']}")
    except ClientError as error:
        answered = error.response
        if answered["ResponseMetadata"].get("HTTPStatusCode", 0) >= 500:
            return "", [unknown("D101", "credentials", explanation(error), "look again in a minute")]
        found = wrong("D101", "credentials", explanation(error), "log in again; and see D104, if it is wrong too")
    except BotoCoreError as error:
        return "", [unknown("D101", "credentials", explanation(error), "log in, or look at the network")]
    date = answered.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return account, [found, clock(date, time.time())] if date else [found]


def _variables(here: Environment, account: str) -> Iterator[Finding]:
    """D102, D103."""
    region = here.contract.region
    base = os.environ.get("QUEUE_URL_BASE", "")
    if base:
        given = base.rpartition("/")[2]
        if given == account:
            yield well("D102", "QUEUE_URL_BASE", account)
        else:
            advice = "log in to the other account, or correct the variable"
            yield wrong("D102", "QUEUE_URL_BASE", f"it names account {given}, the credentials are of {account}", advice)
    host = urlsplit(base).hostname or ""
    named = {"AWS_DEFAULT_REGION": os.environ.get("AWS_DEFAULT_REGION", "")}
    if host.startswith("sqs."):  # An emulator's is called otherwise.
        named["QUEUE_URL_BASE"] = host.split(".")[1]
    for variable, given in named.items():
        if given == region:
            yield well("D103", variable, region)
        elif given:
            yield wrong("D103", variable, f"{given}, the contract says {region}", "correct the variable")


def _missing(here: Environment, queue: Queue, error: Exception) -> Finding:
    """D201 or D202: a queue that does not answer."""
    is_dead = here.name(queue, dead=False) in here._urls
    code, name = ("D202", here.name(queue, dead=True)) if is_dead else ("D201", here.name(queue))
    said = explanation(error)
    if not said:
        raise error
    if is_missing(error):
        return wrong(code, queue.name, f"there is no queue {name} in {here.contract.region}", "apply Terraform")
    return unknown(code, queue.name, said, "look with credentials that may")


def _attributes(here: Environment, queue: Queue, live: Mapping[str, str]) -> Iterator[Finding]:
    """D203 to D209: the queue itself."""
    wanted = (
        ("D203", "VisibilityTimeout", queue.visibility_timeout_seconds, "visibility_timeout_seconds"),
        ("D204", "MessageRetentionPeriod", queue.retention_seconds, "retention_seconds"),
        ("D205", "ReceiveMessageWaitTimeSeconds", here.contract.wait_time_seconds, "wait_time_seconds"),
    )
    for code, attribute, value, field in wanted:
        yield _equal(code, queue.name, attribute, live.get(attribute), value, field)
    policy = json.loads(live.get("RedrivePolicy") or "{}")
    target, count = policy.get("deadLetterTargetArn", "no queue"), int(policy.get("maxReceiveCount", 0))
    name = here.name(queue, dead=True)
    says = f"into {target.rpartition(':')[2]} after {count} deliveries"
    if target.endswith(f":{name}") and count == queue.max_receive_count:
        yield well("D206", queue.name, says)
    else:
        yield wrong("D206", queue.name, f"{says}; the contract says {name} after {queue.max_receive_count}", APPLY)
    size = int(live.get("MaximumMessageSize", 0))
    largest = here.contract.max_message_bytes
    if size >= largest:
        yield well("D207", queue.name, f"{size:,} bytes")
    else:
        advice = f"set its maximum message size to {largest:,}, as max_message_bytes says"
        yield wrong("D207", queue.name, f"it takes {size:,} bytes at the most", advice)
    yield _equal("D208", queue.name, "DelaySeconds", live.get("DelaySeconds", "0"), 0, "")
    yield _encrypted("D209", queue.name, live)


def _dead_letter_attributes(
    here: Environment, queue: Queue, live: Mapping[str, str], dead: Mapping[str, str]
) -> Iterator[Finding]:
    """D210 to D212: the dead-letter queue."""
    attribute, field = "MessageRetentionPeriod", "dead_letter_retention_seconds"
    yield _equal("D210", queue.name, attribute, dead.get(attribute), here.contract.dead_letter_retention_seconds, field)
    yield _encrypted("D211", queue.name, dead)
    policy = json.loads(dead.get("RedriveAllowPolicy") or "{}")
    permission = policy.get("redrivePermission", "allowAll")
    if permission == "allowAll" or live["QueueArn"] in policy.get("sourceQueueArns", []):
        yield well("D212", queue.name, permission)
    else:
        yield wrong("D212", queue.name, f"its redrive allow policy says {permission}, without {queue.name}", APPLY)


def _equal(code: str, subject: str, attribute: str, found: str | None, wanted: int, field: str) -> Finding:
    if found is not None and int(found) == wanted:
        return well(code, subject, f"{attribute} {wanted}")
    says = f"{attribute} is {found}, {field or 'it should be'} {wanted}"
    return wrong(code, subject, says, APPLY)


def _encrypted(code: str, subject: str, live: Mapping[str, str]) -> Finding:
    if live.get("KmsMasterKeyId"):
        return well(code, subject, "with a key of KMS")
    if live.get("SqsManagedSseEnabled") == "true":
        return well(code, subject, "by SQS")
    return wrong(code, subject, "messages are stored in plain text", APPLY)


def _rights(here: Environment, queue: Queue, role: str, arn: str, dead_arn: str) -> Iterator[Finding]:
    """D301: requests that SQS would have to refuse anyway tell whether the role may make them."""
    for dead, actions in zip((False, True), ROLES[role], strict=True):
        missing, strange = [], []
        for action in actions:
            denied, said = _probe(here, queue, action, dead_arn if dead else arn, dead=dead)
            missing += [action] if denied else []
            strange += [said] if said else []
        subject = f"{queue.name} dlq" if dead else queue.name
        if missing:
            listed = ", ".join(missing)
            yield wrong("D301", subject, f"{role} may not {listed}", f"attach the policy of the {role} to the role")
        if strange:
            yield unknown("D301", subject, strange[0], "look again")
        if actions and not missing and not strange:
            yield well("D301", subject, f"{role} may {', '.join(actions)}")


def _probe(here: Environment, queue: Queue, action: str, arn: str, *, dead: bool) -> tuple[bool, str]:
    """Return whether an action is denied, and what kept us from knowing."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        PROBES[action](here.sqs, here.url(queue, dead=dead), arn)
    except ClientError as error:
        return is_denied(error), ""
    except BotoCoreError as error:
        return False, str(error)
    return False, ""


def _orphans(here: Environment) -> Iterator[Finding]:
    """D213: queues that were removed from the contract, or renamed there, but not deleted."""
    known = {here.name(queue, dead=dead) for queue in here.contract.queues for dead in (False, True)}
    try:
        urls = here.urls_at_sqs()
    except Exception as error:
        if not (said := explanation(error)):
            raise
        yield unknown("D213", "queues", said, "run it again with credentials that may sqs:ListQueues")
        return
    found = [_orphan(here, name, url) for name, url in urls.items() if name not in known]
    orphans = [finding for finding in found if finding]
    yield from orphans or [well("D213", "queues", "all of them are in the contract")]


def _orphan(here: Environment, name: str, url: str) -> Finding | None:
    """D213 of one queue; nothing if it has just been deleted, which SQS takes up to a minute for.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_DeleteQueue.html
    """
    short = name.removeprefix(here.queue_name_prefix).removesuffix(".fifo")
    counts = {
        "ApproximateNumberOfMessages": "waiting",
        "ApproximateNumberOfMessagesNotVisible": "in flight",
        "ApproximateNumberOfMessagesDelayed": "delayed",
    }
    try:
        found = here.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(counts))["Attributes"]
    except Exception as error:
        if not (said := explanation(error)):
            raise
        return None if is_missing(error) else orphan(short, name, {}, said)
    return orphan(short, name, {state: int(found[count]) for count, state in counts.items()})


def _workers(here: Environment, queues: list[Queue]) -> Iterator[Finding]:
    """D501: a poll leaves a trace in CloudWatch, also an empty one; a worker on this machine leaves a file."""
    try:
        series = read(here, queues, [EMPTY_RECEIVES, RECEIVED], RECENT_SECONDS, 60) if queues else {}
    except Exception as error:
        if not (said := explanation(error)):
            raise
        yield unknown("D501", "CloudWatch", said, "look with credentials that may cloudwatch:GetMetricData")
        series = {}
    for queue in queues:
        try:
            yield well("D501", queue.name, f"on this machine, {check(here.contract, queue):.0f} s ago")
            continue
        except NotAliveError:
            pass
        if not series:
            continue
        found = [series[queue.name, metric.name].values for metric in (EMPTY_RECEIVES, RECEIVED)]
        receives = sum(value or 0 for values in found for value in values)
        waiting = here.depth(queue)
        if receives:
            yield well("D501", queue.name, f"{receives:.0f} receives in the last {age(RECENT_SECONDS)}")
        elif not queue.workers_min and not waiting:
            yield well("D501", queue.name, "nothing waits, and then there need be none")
        else:
            says = f"no receive in the last {age(RECENT_SECONDS)}, and {waiting} messages wait"
            yield wrong("D501", queue.name, says, "look at the workers' logs, and whether any are to run")
