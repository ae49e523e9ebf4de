"""Existing queues at SQS: their entries for contract.json, and what Terraform would change in them."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...aws import explanation
from ...commands import Failure
from ...contract import ENVIRONMENT_IN_NAMES
from ...environment.sqs import Environment

LONGEST_SHORT_NAME = 24
"""Characters of a proposed name before "-tasks" or a number; 30 are valid for a service with the longest name."""


@dataclass(frozen=True)
class Existing:
    """A queue that exists already."""

    entry: Mapping[str, Any]
    """Its entry for `queues` in contract.json."""
    url: str
    dead_letter_url: str
    """Empty if it has no dead-letter queue."""
    losses: tuple[str, ...]
    """What Terraform would remove from the queue; empty if it is not to manage the queue."""
    arn: str
    sources: tuple[str, ...]
    """Names of the queues whose dead-letter queue it is; of another account's queue that is unknown, so empty."""


def read(env: Environment, queue: str, defaults: Mapping[str, Any]) -> Existing:
    """Read the attributes of a queue.

    Args:
        env: the environment that is to use the queue.
        queue: its name or URL.
        defaults: values of the contract's queues, which the entry does not repeat.

    Raises:
        Failure: the queue cannot be read, or a short name cannot be derived from its name.
    """
    try:
        url = queue if "://" in queue else env.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        live = env.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    except Exception as error:
        raise Failure(f"queue {queue} cannot be read: {explanation(error) or error}") from error
    *_, account, name = live["QueueArn"].split(":")
    policy = json.loads(live.get("RedrivePolicy") or "{}")
    dead = str(policy.get("deadLetterTargetArn", "")).rpartition(":")[2]
    values = {
        "fifo": live.get("FifoQueue") == "true",
        "visibility_timeout_seconds": int(live["VisibilityTimeout"]),
        "retention_seconds": int(live["MessageRetentionPeriod"]),
        **({"max_receive_count": int(policy["maxReceiveCount"])} if policy else {}),
    }
    entry: dict[str, Any] = {
        "name": _short_name(name, env),
        "queue_name": _general_name(name, env),
        **({"dead_letter_queue_name": _general_name(dead, env)} if dead else {}),
        **{field: value for field, value in values.items() if defaults.get(field) != value},
    }
    is_own = account == env.client("sts").get_caller_identity()["Account"]
    if not is_own:
        entry.update(account=account, managed=False)
    dead_letter_url = f"{url.rpartition('/')[0]}/{dead}" if dead else ""
    losses = (*_losses(env, live), *_shared(env, dead_letter_url, name)) if is_own else ()
    sources = tuple(_sources(env, url)) if is_own else ()
    return Existing(entry, url, dead_letter_url, losses, live["QueueArn"], sources)


def named_apart(queues: Sequence[Existing]) -> list[Existing]:
    """Return the queues, with a number at the end of a short name that another queue before it has."""
    owners: dict[str, str] = {}
    apart = []
    for queue in queues:
        name, number = queue.entry["name"], 1
        while owners.setdefault(name, queue.arn) != queue.arn:
            number += 1
            name = f"{queue.entry['name']}-{number}"
        apart.append(replace(queue, entry={**queue.entry, "name": name}))
    return apart


def _sources(env: Environment, url: str) -> list[str]:
    """Return the names of the queues whose dead-letter queue this is."""
    pages = env.sqs.get_paginator("list_dead_letter_source_queues").paginate(QueueUrl=url)
    return sorted(source.rpartition("/")[2] for page in pages for source in page["queueUrls"])


def _shared(env: Environment, dead_letter_url: str, name: str) -> Iterator[str]:
    """Yield the use of a dead-letter queue together with other queues; Terraform allows one only."""
    if dead_letter_url and (others := [other for other in _sources(env, dead_letter_url) if other != name]):
        yield f"the use of its dead-letter queue together with {', '.join(others)}"


def _losses(env: Environment, live: Mapping[str, str]) -> Iterator[str]:
    """Yield what Terraform would remove from a queue that it manages."""
    largest = env.contract.max_message_bytes
    if int(live.get("MaximumMessageSize", 0)) > largest:
        yield f"messages over max_message_bytes, {largest:,} bytes"
    if live.get("Policy"):
        yield "its access policy, which may let SNS or other accounts send"
    if int(live.get("DelaySeconds", 0)):
        yield f"its delay of {live['DelaySeconds']} s"
    if live.get("KmsMasterKeyId"):
        yield "its KMS key, unless kms_key_arn is that key"


def _short_name(name: str, env: Environment) -> str:
    """Derive a short name from a queue's name at SQS; it breaks no rule of names."""
    text = name.removesuffix(".fifo").removeprefix(env.queue_name_prefix).removeprefix(f"{env.contract.service}-")
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).lstrip("-0123456789")[:LONGEST_SHORT_NAME].rstrip("-")
    if not slug:
        raise Failure(f"the queue {name} has no letters for a short name; write its entry by hand")
    if slug.endswith("-dlq") or keyword.iskeyword(slug.replace("-", "_")):
        slug += "-tasks"
    return slug


def _general_name(name: str, env: Environment) -> str:
    """Return a queue's name at SQS with a placeholder for the environment."""
    return re.sub(rf"(?<![A-Za-z0-9]){env.environment}(?![A-Za-z0-9])", ENVIRONMENT_IN_NAMES, name)
