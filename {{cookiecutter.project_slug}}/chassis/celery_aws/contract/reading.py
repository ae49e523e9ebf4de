"""Reads the text of a contract, and adds the defaults and workers that it implies. Checks no rule."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from .model import Contract, Queue, Schedule, Worker

SECTIONS = ("$schema", "queue_defaults", "queues", "worker_defaults", "workers", "schedules")
"""Keys of a contract that are not values of the service."""

MAX_LEVELS = 50
"""Levels of objects and lists in each other; no contract needs a tenth of that."""
TOO_DEEP = f"objects and lists are nested more than {MAX_LEVELS} levels deep"


def decode(text: str) -> Any:
    """Return the content of a contract.json.

    Raises:
        ValueError: it is not JSON, a number is not finite, a key is in an object twice, values are nested
            more than `MAX_LEVELS` deep, or a text cannot be written in UTF-8.
    """
    try:
        data = json.loads(text, object_pairs_hook=_without_repetitions, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    _refuse_deep(data)
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start : error.end])
        raise ValueError(f"{half} is half of a surrogate pair, which is no character") from None
    return data


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no finite number")
    return number


def _refuse_deep(data: object) -> None:
    """Raise ValueError if values are nested more than `MAX_LEVELS` deep."""
    level = [data]
    for _ in range(MAX_LEVELS):
        level = [inner for value in level for inner in _inner(value)]
        if not level:
            return
    raise ValueError(TOO_DEEP)


def _inner(value: object) -> Iterable[object]:
    """Return the values in an object or a list."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _without_repetitions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: a key is there twice, of which JSON silently takes the last.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def parse(data: Mapping[str, Any]) -> Contract:
    """Convert valid JSON data to a contract."""
    whole = effective(data)
    queues = tuple(Queue(**queue) for queue in whole["queues"])
    workers = tuple(Worker(**{**worker, "queues": tuple(worker["queues"])}) for worker in whole["workers"])
    schedules = tuple(Schedule(**{**each, "args": tuple(each.get("args", ()))}) for each in data.get("schedules", ()))
    service = {name: value for name, value in whole.items() if name not in SECTIONS}
    return Contract(**service, queues=queues, workers=workers, schedules=schedules)


def is_version_1(data: Mapping[str, Any]) -> bool:
    """Return whether a contract is of version 1, in which every queue had all numbers, and one worker."""
    queues = data.get("queues")
    if "queue_defaults" in data or not isinstance(queues, list):
        return False
    return any(isinstance(queue, dict) and "workers_max" in queue for queue in queues)


def effective(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a contract in which every queue and worker has all its values, and every queue has a worker.

    Args:
        data: a contract, as decoded from JSON; its sections are objects and lists of objects.
    """
    kind = {} if data.get("broker") == "rabbitmq" else {"fifo": data.get("broker") == "sqs-fifo"}
    queues = [{**kind, **data["queue_defaults"], **queue} for queue in data["queues"]]
    workers = [{**data["worker_defaults"], **worker} for worker in (*data["workers"], *implied_workers(data))]
    return {**data, "queues": queues, "workers": workers}


def implied_workers(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a worker of the same name for each queue that no worker lists; none if a queue's name is no text."""
    served = {name for worker in data["workers"] for name in texts(worker.get("queues"))}
    names = texts([queue.get("name") for queue in data["queues"]])
    return [{"name": name, "queues": [name]} for name in names if name not in served]


def shown(value: object) -> str:
    """Return a value as JSON for people: letters as they are, but control characters escaped."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def texts(value: object) -> list[str]:
    """Return a list of texts; an empty one in place of anything else."""
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else []
