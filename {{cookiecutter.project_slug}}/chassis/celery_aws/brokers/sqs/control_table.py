"""The DynamoDB table of remote control: paused queues, revoked tasks, and commands to workers with their answers.

SQS has no broadcast, and a command that is sent to the workers of this moment says nothing to those
that start later. So what is to last is kept here, and every worker reads one partition of the table
every `CONTROL_POLL_SECONDS`. An answer is an item of its own, in the partition of its command.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kombu.utils.json import JSONEncoder, dumps, loads

from ...contract.model import CONTROL_POLL_SECONDS

ANSWER_SECONDS = 2 * CONTROL_POLL_SECONDS + 1
"""How long a command waits for answers at least: two polls, and the time of the requests."""

LOOK_FOR_ANSWERS_EVERY_SECONDS = 0.5

COMMAND_SECONDS = 300
"""How long a command stays in the table. A worker that cannot read the table for as long misses it.

The clocks of an operator and a worker may differ by as much: AWS refuses requests of a clock that is further off.
"""

ANSWERS_KEPT_SECONDS = 3_600

MAX_ANSWER_BYTES = 350 * 1024
"""Largest answer; an item of DynamoDB has at most 400 KB.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
"""

WORKERS = "workers"
"""The partition that workers read."""

PAUSED, REVOKED, COMMAND = "paused", "revoked", "command"
"""The kinds of items in it."""

Item = Mapping[str, Any]


class Encoder(JSONEncoder):
    """Writes what JSON does not know as text: some answers of Celery contain objects of its configuration."""

    def default(self, o: Any) -> Any:
        """Return what kombu writes for an object, or else its representation."""
        try:
            return super().default(o)
        except TypeError:
            return repr(o)


@dataclass
class State:
    """What workers are to do."""

    paused: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is stored with each paused queue, by the queue's name in the contract."""
    revoked: set[str] = field(default_factory=set)
    """Ids of tasks."""
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Commands by their ids, with the keys of a command of kombu's mailbox."""
    expired: list[str] = field(default_factory=list)
    """Keys of items that are to be deleted; DynamoDB itself takes some days."""


def state_of(items: Iterable[Item]) -> State:
    """Return the state that the items of the workers' partition describe; items that are no JSON are left out."""
    state, now = State(), time.time()
    for item in items:
        key = item.get("key", {}).get("S", "")
        kind, _, name = key.partition("#")
        if float(item.get("expires_at", {}).get("N", now + 1)) < now:
            state.expired.append(key)
        elif kind == REVOKED:
            state.revoked.add(name)
        elif kind == PAUSED:
            state.paused[name] = _value(item)
        elif kind == COMMAND and (command := _value(item)):
            state.commands[name] = command
    return state


def _value(item: Item) -> dict[str, Any]:
    with contextlib.suppress(Exception):  # kombu's decoder raises many types.
        value = loads(item["value"]["S"]) if "value" in item else {}
        return value if isinstance(value, dict) else {}
    return {}


def query(table: str, scope: str, after: Item | None = None, *, consistent: bool = False) -> dict[str, Any]:
    """Return the parameters of a Query for a partition."""
    parameters: dict[str, Any] = {
        "TableName": table,
        "KeyConditionExpression": "#scope = :scope",
        "ExpressionAttributeNames": {"#scope": "scope"},
        "ExpressionAttributeValues": {":scope": {"S": scope}},
        "ConsistentRead": consistent,
    }
    return {**parameters, "ExclusiveStartKey": after} if after else parameters


def put(table: str, scope: str, key: str, value: Any, keep_seconds: float | None = None) -> dict[str, Any]:
    """Return the parameters of a PutItem.

    Args:
        table: name of the table.
        scope: partition.
        key: key in it.
        value: anything; see `Encoder`.
        keep_seconds: after how long it expires; None for never.
    """
    item = {"scope": {"S": scope}, "key": {"S": key}, "value": {"S": dumps(value, cls=Encoder)}}
    if keep_seconds is not None:
        item["expires_at"] = {"N": str(int(time.time() + keep_seconds))}
    return {"TableName": table, "Item": item}


def delete(table: str, scope: str, key: str) -> dict[str, Any]:
    """Return the parameters of a DeleteItem."""
    return {"TableName": table, "Key": {"scope": {"S": scope}, "key": {"S": key}}}


def answer(table: str, command_id: str, hostname: str, data: Any) -> dict[str, Any]:
    """Return the parameters of the PutItem of a worker's answer."""
    made = put(table, command_id, hostname, data, ANSWERS_KEPT_SECONDS)
    if (size := len(made["Item"]["value"]["S"].encode())) > MAX_ANSWER_BYTES:
        problem = {"error": f"the answer has {size} bytes, more than the {MAX_ANSWER_BYTES} that fit into an item"}
        made = put(table, command_id, hostname, {hostname: problem}, ANSWERS_KEPT_SECONDS)
    return made


class ControlTable:
    """The table, for those who control workers.

    Args:
        client: a boto3 client of DynamoDB.
        name: name of the table.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def state(self) -> State:
        """Return what workers are to do."""
        return state_of(self._items(WORKERS))

    def pause(self, queue: str, about: Mapping[str, Any]) -> None:
        """Have workers take no messages of a queue, also those that start later.

        Args:
            queue: the queue's name in the contract.
            about: what to store with it.
        """
        self._client.put_item(**put(self._name, WORKERS, f"{PAUSED}#{queue}", about))

    def resume(self, queue: str) -> None:
        """Have workers take messages of a queue again."""
        self._client.delete_item(**delete(self._name, WORKERS, f"{PAUSED}#{queue}"))

    def revoke(self, task_ids: Collection[str], keep_seconds: float) -> None:
        """Have workers revoke tasks whose messages they receive, also those that start later.

        Args:
            task_ids: ids of the tasks; each is an item, written by a request of its own.
            keep_seconds: after how long workers forget them.
        """
        for task_id in task_ids:
            self._client.put_item(**put(self._name, WORKERS, f"{REVOKED}#{task_id}", {}, keep_seconds))

    def ask(
        self,
        command: Mapping[str, Any],
        *,
        timeout_seconds: float,
        limit: int | None = None,
        callback: Callable[[Any], object] | None = None,
    ) -> list[Any]:
        """Give workers a command, and return their answers: for each a mapping with its host name as key.

        Args:
            command: as in kombu's mailbox: `method`, `arguments`, `destination`, `pattern`, `matcher`.
            timeout_seconds: how long to wait for answers; 0 for a command that no worker is to answer.
            limit: number of answers after which not to wait any longer.
            callback: is called with each answer.
        """
        command_id = str(uuid.uuid4())
        wanted = {"reply_to": {"exchange": "", "routing_key": command_id}} if timeout_seconds else {}
        asked = {**command, **wanted, "ticket": command_id}
        self._client.put_item(**put(self._name, WORKERS, f"{COMMAND}#{command_id}", asked, COMMAND_SECONDS))
        found: dict[str, Any] = {}
        end = time.monotonic() + timeout_seconds
        while time.monotonic() < end and not (limit and len(found) >= limit):
            time.sleep(LOOK_FOR_ANSWERS_EVERY_SECONDS)
            for item in self._items(command_id):
                hostname = item["key"]["S"]
                if hostname not in found:
                    found[hostname] = _value(item)
                    if callback:
                        callback(found[hostname])
        for hostname in found:
            self._client.delete_item(**delete(self._name, command_id, hostname))
        return list(found.values())

    def _items(self, scope: str) -> list[Item]:
        items: list[Item] = []
        after = None
        while True:
            page = self._client.query(**query(self._name, scope, after, consistent=True))
            items += page["Items"]
            after = page.get("LastEvaluatedKey")
            if not after:
                return items
