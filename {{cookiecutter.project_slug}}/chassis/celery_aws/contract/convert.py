"""Converts a contract of version 1 to version 2: `python -m celery_aws.contract.convert contract.json`.

Version 1 repeated all numbers in every queue, among them those of the queue's worker: `concurrency`, `workers_min` and
`workers_max`. Version 2 states defaults once; a queue or worker states what differs. No effective number changes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from .checking import problems
from .model import Queue, Worker
from .reading import decode, is_version_1

SCHEMA = "./chassis/contract.schema.json"
MOVED: Mapping[str, str] = {"concurrency": "concurrency", "workers_min": "min", "workers_max": "max"}
"""Fields of a queue in version 1 that are fields of its worker in version 2, with their names there."""
FORMER_SIZES: Mapping[str, Mapping[str, object]] = {
    "ecs": {"cpu_units": 512, "memory_mib": 1024},
    "ec2": {"instance_type": "t4g.small"},
}
"""The sizes of workers before version 2, unless Terraform variables set others."""
FORMER_TASKS_PER_CHILD = 1000
"""Tasks after which a task process was replaced before version 2."""
LONGEST_LINE = 120

Section = dict[str, Any]
Factored = tuple[Section, list[Section]]
"""Defaults, and what each queue or worker states itself."""


class ConversionError(ValueError):
    """The file holds no contract of version 1."""


def convert(data: object) -> Section:
    """Return a contract of version 1 as version 2, with the same effective values.

    Fields that are unknown or missing stay so, because they are for the rules to refuse.

    Args:
        data: the contract, as decoded from JSON.

    Raises:
        ConversionError: it is no contract of version 1.
    """
    if isinstance(data, dict) and "queue_defaults" in data:
        raise ConversionError("this contract is of version 2 already")
    if not isinstance(data, dict) or not is_version_1(data) or not all(isinstance(q, dict) for q in data["queues"]):
        raise ConversionError("this is no contract of version 1: a JSON object whose queues have workers_max")
    queues = [{name: value for name, value in queue.items() if name not in MOVED} for queue in data["queues"]]
    workers = [_worker(queue, data.get("compute")) for queue in data["queues"]]
    whole = _with_sections(data, ({}, queues), ({}, workers))
    of_queue = _factored(queues, _names(Queue), lambda found: _with_sections(whole, found, ({}, workers)))
    of_worker = _factored(workers, _names(Worker), lambda found: _with_sections(whole, ({}, queues), found))
    return _with_sections(data, of_queue, of_worker)


def text(contract: Mapping[str, Any]) -> str:
    """Return the text of contract.json as a new project has it: a queue or worker is one line unless it is long."""
    lines = (f"  {json.dumps(name)}: {_value(value)}" for name, value in contract.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert the file that is named on the command line, in place.

    Args:
        arguments: of the command line; by default those of the process.

    Returns:
        0, or 2 if the file was left as it is.
    """
    parser = argparse.ArgumentParser(prog="python -m celery_aws.contract.convert", description=__doc__)
    parser.add_argument("contract", type=Path, help="a contract.json of version 1, which is replaced")
    path = parser.parse_args(arguments).contract
    try:
        converted = convert(decode(path.read_text(encoding="utf-8")))
    except OSError as error:
        print(f"{path} cannot be read: {error}", file=sys.stderr)
        return 2
    except ConversionError as error:
        print(f"{path} was left as it is: {error}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"{path} was left as it is: it is not JSON in UTF-8: {error}", file=sys.stderr)
        return 2
    path.write_bytes(text(converted).encode())
    print(f"{path} is of version 2 now.")
    print("If terraform/environments/ sets cpu_units, memory_mib or instance_type, move them into worker_defaults.")
    if found := problems(converted):
        print(f"It breaks the same rules as before; see `contract`: {', '.join(sorted({p.field for p in found}))}.")
    return 0


def _worker(queue: Section, compute: object) -> Section:
    """Return the worker of a queue of version 1."""
    named = {"name": queue["name"], "queues": [queue["name"]]} if "name" in queue else {}
    moved = {new: queue[old] for old, new in MOVED.items() if old in queue}
    size = FORMER_SIZES.get(str(compute), FORMER_SIZES["ecs"])
    return {**named, **moved, "tasks_per_child": FORMER_TASKS_PER_CHILD, **size}


def _with_sections(data: Mapping[str, Any], queues: Factored, workers: Factored) -> Section:
    """Return a contract with these defaults and items in place of its own, each after its defaults."""
    sections = {
        "queue_defaults": queues[0],
        "queues": queues[1],
        "worker_defaults": workers[0],
        "workers": workers[1],
    }
    converted: Section = {"$schema": SCHEMA}
    for name, value in data.items():
        converted.update(sections if name == "queues" else {} if name in sections else {name: value})
    return converted


def _names(shape: type) -> set[str]:
    """Return the fields that defaults may have."""
    return {field.name for field in fields(shape)} - {"name", "queues"}


def _factored(items: list[Section], known: set[str], made: Callable[[Factored], Section]) -> Factored:
    """Return the defaults of queues or workers, and what each of them states itself.

    The defaults are the most common values. If these do not go together, as may be if they come from different
    queues, the defaults are all values of that queue from which the others differ least. So what broke no rule breaks
    none afterwards.

    Args:
        items: queues or workers with all their values.
        known: fields that defaults may have.
        made: returns the contract with given defaults and items, to be checked.
    """
    shared = [name for name in items[0] if name in known and all(name in item for item in items)]
    before = {(problem.field, problem.rule) for problem in problems(made(({}, items)))}
    for defaults in _candidates(items, shared):
        stated = [
            {name: value for name, value in item.items() if name not in defaults or not _same(value, defaults[name])}
            for item in items
        ]
        if {(problem.field, problem.rule) for problem in problems(made((defaults, stated)))} <= before:
            return defaults, stated
    return {}, items


def _candidates(items: list[Section], shared: list[str]) -> Iterator[Section]:
    """Yield defaults: the most common values, then all values of each queue or worker."""
    yield {name: _most_common([item[name] for item in items]) for name in shared}
    whole = [{name: item[name] for name in shared} for item in items]
    yield from sorted(
        whole, key=lambda own: sum(not _same(own[name], other[name]) for other in whole for name in shared)
    )


def _most_common(values: list[Any]) -> Any:
    """Return the most common value, the first of several that are."""
    written = [json.dumps(value) for value in values]
    return values[written.index(Counter(written).most_common(1)[0][0])]


def _same(one: object, other: object) -> bool:
    """Return whether two values are the same in JSON; in Python, 1 and 1.0 and true are."""
    return json.dumps(one) == json.dumps(other)


def _value(value: object) -> str:
    """Write a value of the contract."""
    if isinstance(value, dict):
        lines = (f"    {json.dumps(name)}: {_line(inner)}" for name, inner in value.items())
        return "{\n" + ",\n".join(lines) + "\n  }" if value else "{}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(_item(item) for item in value) + "\n  ]"
    return _line(value)


def _item(item: object) -> str:
    """Write a queue or a worker on one line, or on several if it is long."""
    if len(line := f"    {_line(item)}") < LONGEST_LINE or not isinstance(item, dict):
        return line
    lines = (f"      {json.dumps(name)}: {_line(value)}" for name, value in item.items())
    return "    {\n" + ",\n".join(lines) + "\n    }"


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
