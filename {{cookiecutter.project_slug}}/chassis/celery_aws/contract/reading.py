"""Reads a contract, and finds all problems in it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .model import SQS_ALONE, Contract, Queue
from .rules import QUEUE_RULES, SERVICE_RULES, Rule

MAX_QUEUES = 20
_KINDS = {"str": (str,), "int": (int,), "float": (int, float)}
_KIND_NAMES = {"str": "text", "int": "a whole number", "float": "a number"}
_INSTEAD = {"str": "text in quotes", "int": "digits only, such as 60", "float": "digits, such as 0.5"}


@dataclass(frozen=True)
class Problem:
    """One broken rule."""

    field: str
    """Key in the contract."""
    value: object
    """The value in the contract."""
    rule: str
    """The rule, with the values that it refers to."""
    suggestion: object
    """A valid value, or a description of one."""
    queue: str = ""
    """Name of the queue; empty for a field of the service."""
    source: str = ""
    """URL of the documentation that sets the limit."""

    def __str__(self) -> str:
        where = f"queue {self.queue}: " if self.queue else ""
        given = json.dumps(self.value, ensure_ascii=True, default=str)
        if len(given) > 60:
            given = given[:57] + "..."
        lines = [f"{where}{self.field} {self.rule}", f"    given: {given}"]
        if self.suggestion != "":
            lines.append(f"    try:   {self.suggestion}")
        if self.source:
            lines.append(f"    why:   {self.source}")
        return "\n".join(lines)


class ContractError(ValueError):
    """The contract breaks rules; `problems` lists all of them."""

    def __init__(self, origin: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 rule" if len(problems) == 1 else f"{len(problems)} rules"
        listed = "\n".join(f"  {problem}".replace("\n", "\n  ") for problem in problems)
        super().__init__(f"{origin} breaks {count}:\n{listed}")


def read(path: Path) -> Contract:
    """Read and check a contract.

    Raises:
        ContractError: it is not a JSON object or breaks rules; all broken rules are listed.
        OSError: the file cannot be read.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        problem = Problem("contract", str(error), "must be JSON in UTF-8", "an editor that shows JSON errors")
        raise ContractError(str(path), [problem]) from None
    if found := problems(data):
        raise ContractError(str(path), found)
    return parse(data)


def parse(data: Mapping[str, Any]) -> Contract:
    """Convert valid JSON data to a contract."""
    return Contract(**{**data, "queues": tuple(Queue(**queue) for queue in data["queues"])})


def problems(data: object) -> list[Problem]:
    """Return all broken rules of a contract, as decoded from JSON; empty if it is valid."""
    return [problem for problem, advice in _findings(data) if not advice]


def advice(data: object) -> list[Problem]:
    """Return recommendations: values that are valid but rarely useful."""
    return [problem for problem, advice in _findings(data) if advice]


def _findings(data: object) -> Iterator[tuple[Problem, bool]]:
    if not isinstance(data, dict):
        yield Problem("contract", data, "must be a JSON object", "the contract.json of a new project"), False
        return
    service: dict[str, Any] = {}
    absent = SQS_ALONE if data.get("broker") == "rabbitmq" else ()
    yield from _shape(data, Contract, absent, service)
    yield from _broken(SERVICE_RULES, service)
    queues = data.get("queues")
    if not isinstance(queues, list) or not 1 <= len(queues) <= MAX_QUEUES:
        count = len(queues) if isinstance(queues, list) else queues
        yield Problem("queues", count, f"must list 1 to {MAX_QUEUES} queues", "high, default, low"), False
    if not isinstance(queues, list):
        return
    names: set[object] = set()
    for index, queue in enumerate(queues):
        if not isinstance(queue, dict):
            yield Problem("queues", queue, "must be JSON objects", "a copy of another queue"), False
            continue
        name = queue.get("name")
        label = name if isinstance(name, str) and name else f"number {index + 1}"
        values: dict[str, Any] = {}
        yield from _shape(queue, Queue, absent, values, label)
        if isinstance(name, str) and name in names:
            yield Problem("name", name, "must be unique", "each queue once", label), False
        names.add(str(name))
        yield from _broken(QUEUE_RULES, {**service, **values}, label)


def _shape(
    data: Mapping[str, Any],
    shape: type[Contract] | type[Queue],
    absent: Sequence[str],
    fitting: dict[str, Any],
    queue: str = "",
) -> Iterator[tuple[Problem, bool]]:
    """Yield fields that are missing, unknown or of the wrong type; put the valid ones into `fitting`."""
    kinds = {field.name: str(field.type) for field in fields(shape) if field.name not in absent}
    for name in (name for name in data if name not in kinds):
        known = "one of " + ", ".join(kinds)
        yield Problem(str(name), data[name], "is not part of the contract", known, queue), False
    for name, kind in kinds.items():
        if name not in data:
            yield Problem(name, None, "is missing", _INSTEAD.get(kind, ""), queue), False
        elif kind in _KINDS:
            value = data[name]
            # In Python, true is an int, and comparisons with NaN are always false.
            fits = isinstance(value, _KINDS[kind]) and not isinstance(value, bool)
            if fits and (kind == "str" or -math.inf < value < math.inf):
                fitting[name] = value
            else:
                yield Problem(name, value, f"must be {_KIND_NAMES[kind]}", _INSTEAD[kind], queue), False


def _broken(rules: Sequence[Rule], values: Mapping[str, Any], queue: str = "") -> Iterator[tuple[Problem, bool]]:
    """Yield the broken rules; each rule is checked as if the earlier suggestions had been followed."""
    given, values = values, dict(values)
    for rule in rules:
        if not rule.is_for(values.get("broker")):
            continue
        try:
            if rule.holds(values):
                continue
            suggestion = rule.suggest(values)
            explained = rule.explained(values)
        except KeyError:  # A field it refers to is missing or invalid, which is reported already.
            continue
        value = values[rule.field]
        yield Problem(rule.field, given[rule.field], explained, suggestion, queue, rule.source), rule.advice
        if isinstance(suggestion, type(value)) and not rule.advice:
            values[rule.field] = suggestion
