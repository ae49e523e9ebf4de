"""Checks a contract: all rules that it breaks, and recommendations."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .model import (
    CHOICES,
    ENVIRONMENT_IN_NAMES,
    LONGEST_ENVIRONMENT,
    OPTIONAL,
    SIZES,
    SQS_ALONE,
    Contract,
    Queue,
    Schedule,
    Worker,
    queue_of_module,
)
from .reading import SECTIONS, decode, effective, implied_workers, is_version_1, parse, shown, texts
from .rules import (
    MAX_NAME_CHARACTERS,
    QUEUE_RULES,
    SCHEDULE_RULES,
    SERVICE_RULES,
    WORKER_RULES,
    Rule,
    longest_name_characters,
)

MAX_QUEUES = 20
MAX_QUEUES_OF_WORKER = 5
"""The alarms of a worker use two metrics per queue, waiting and in flight; CloudWatch allows ten in an alarm.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-limits.html
"""

_KINDS = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
_KIND_NAMES = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
_INSTEAD = {
    "str": "text in quotes",
    "int": "digits only, such as 60",
    "float": "digits, such as 0.5",
    "bool": "false",
}
_IN_QUOTES = {
    "int": r"-?(0|[1-9][0-9]{0,14})",
    "float": r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?",
    "bool": "true|false",
}
"""Texts that are a value without their quotes. Answers to questions are none: the template removes the quotes."""

MAX_SCHEDULES = 200

SCHEDULE_DEFAULTS: Mapping[str, Any] = {
    field.name: {"args": [], "kwargs": {}}.get(field.name, field.default)
    for field in fields(Schedule)
    if field.name not in ("name", "task")
}

OF_ONE = ("name", "queue_name", "dead_letter_queue_name", "queues")
"""Fields of a queue or worker that no other can share, and that therefore have no default."""

_OF_WORKER = ("concurrency", "workers_min", "workers_max", "cpu_units", "memory_mib", "instance_type")
"""Fields of workers that people look for in queues."""

_OF_SERVICE = {*SECTIONS, *(each.name for each in fields(Contract))}
"""Fields at the top level."""


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
    of: str = ""
    """What the field belongs to, such as `queue high`, `worker high` or `queue_defaults`; empty for the service."""
    source: str = ""
    """URL of the documentation that sets the limit."""

    def __str__(self) -> str:
        where = f"{self.of}: " if self.of else ""
        given = shown(self.value)
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
        data = decode(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        rule = f"must be JSON in UTF-8; line {error.lineno}, column {error.colno}: {error.msg}"
        line = error.doc.splitlines()[error.lineno - 1].strip() if error.doc else ""
        raise ContractError(str(path), [Problem("contract", line, rule, "")]) from None
    except ValueError as error:
        raise ContractError(str(path), [Problem("contract", str(error), "must be JSON in UTF-8", "")]) from None
    if found := problems(data):
        raise ContractError(str(path), found)
    return parse(data)


def problems(data: object) -> list[Problem]:
    """Return all broken rules of a contract, as decoded from JSON; empty if it is valid."""
    found = [problem for problem, advice in _findings(data) if not advice]
    return found or [*_clashes(parse(data))] if isinstance(data, dict) else found


def advice(data: object) -> list[Problem]:
    """Return recommendations: values that are valid but rarely useful."""
    return [problem for problem, advice in _findings(data) if advice]


Finding = tuple[Problem, bool]
"""A broken rule, and whether it is only a recommendation."""


def _findings(data: object) -> Iterator[Finding]:
    if not isinstance(data, dict):
        yield Problem("contract", data, "must be a JSON object", "the contract.json of a new project"), False
        return
    if is_version_1(data):
        rule = "is missing: this contract is of version 1, which repeated all numbers in every queue"
        convert = "`PYTHONPATH=chassis python3 -m celery_aws.contract.convert contract.json`"
        yield Problem("queue_defaults", None, rule, convert), False
        return
    service: dict[str, Any] = {}
    plain = {name: value for name, value in data.items() if name not in SECTIONS}
    absent = SQS_ALONE if data.get("broker") == "rabbitmq" else ()
    yield from _shape(plain, _kinds(Contract, (*absent, "queues", "workers")), service, more=SECTIONS)
    yield from _broken(SERVICE_RULES, service)
    wrong = [*_wrong_sections(data)]
    yield from ((problem, False) for problem in wrong)
    if wrong:
        return
    yield from _route_findings(data)
    queues = [*_queue_findings(data, service, absent)]
    yield from queues
    names_hold = not any(problem.field == "name" for problem, _ in queues)  # Workers are assigned by these names.
    yield from _worker_findings(data, service, implied_workers(data) if names_hold else [])
    if names_hold:
        yield from _assignments(data)
        yield from _schedule_findings(data, service, absent)


def _wrong_sections(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the sections that are missing, or not what they must be."""
    for name in ("queue_defaults", "worker_defaults"):
        if not isinstance(data.get(name), dict):
            yield Problem(name, data.get(name), "must be a JSON object", "{}")
    examples = {
        "queues": '{"name": "high"}',
        "workers": '{"name": "high", "queues": ["high"]}',
        "schedules": '{"name": "nightly", "task": "high.send_report", "cron": "30 6 * * *"}',
    }
    for name, example in examples.items():
        items = data.get(name, [] if name in OPTIONAL else None)
        if not isinstance(items, list):
            yield Problem(name, items, "must be a list of JSON objects", f"[{example}]")
            continue
        for item in items:
            if not isinstance(item, dict):
                yield Problem(name, item, "must be JSON objects", example)
        if name == "schedules" and len(items) > MAX_SCHEDULES:
            yield Problem(name, len(items), f"must list at most {MAX_SCHEDULES} schedules", "a task that sends others")
        if name == "queues" and not 1 <= len(items) <= MAX_QUEUES:  # There are as many workers, or fewer.
            yield Problem(name, len(items), f"must list 1 to {MAX_QUEUES} queues", "high, default, low")
    if not isinstance(data.get("$schema", ""), str):
        yield Problem("$schema", data["$schema"], "must be text", "./chassis/contract.schema.json")


def _route_findings(data: Mapping[str, Any]) -> Iterator[Finding]:
    routes, known = data.get("routes", {}), [queue.get("name") for queue in data["queues"]]
    if not isinstance(routes, dict):
        yield Problem("routes", routes, "must be a JSON object", '{"reports.*": "low"}'), False
        return
    for pattern, queue in routes.items():
        if queue not in known:
            rule = f"must route {shown(pattern)} to a queue of the contract"
            yield Problem("routes", queue, rule, ", ".join(map(str, known))), False


def _queue_findings(data: Mapping[str, Any], service: Mapping[str, Any], absent: Sequence[str]) -> Iterator[Finding]:
    behind = _other_tasks(data)
    fifo = service.get("broker") == "sqs-fifo"
    derived = [
        {"other_tasks_seconds": behind.get(str(queue.get("name")), 0), "fifo": fifo, "managed": True}
        for queue in data["queues"]
    ]
    yield from _item_findings(data, "queue", _kinds(Queue, absent), QUEUE_RULES, service, derived)
    yield from _repeated(data["queues"], "queue", "must be unique")


def _worker_findings(
    data: Mapping[str, Any], service: Mapping[str, Any], implied: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    chosen = service.get("compute")
    chosen = chosen if chosen in SIZES else CHOICES["compute"][0]  # Which is what its rule suggests.
    other = [field for compute, sizes in SIZES.items() if compute != chosen for field in sizes]
    latencies = {str(queue.get("name")): queue.get("acceptable_latency_seconds") for queue in _assigned(data)["queues"]}
    derived = []
    data = {**data, "workers": [*data["workers"], *implied]}
    for worker in data["workers"]:
        known = [latencies.get(name) for name in texts(worker.get("queues"))]
        shortest = min((x for x in known if isinstance(x, (int, float))), default=math.inf)
        derived.append({"shortest_latency_seconds": shortest})
    yield from _item_findings(data, "worker", _kinds(Worker, other), WORKER_RULES, service, derived)


def _schedule_findings(data: Mapping[str, Any], service: Mapping[str, Any], absent: Sequence[str]) -> Iterator[Finding]:
    """Yield what is wrong in each schedule, and schedules whose queue is unknown."""
    queues = {queue["name"]: queue for queue in _assigned(data)["queues"]}
    kinds = _kinds(Schedule, absent)
    for label, schedule in _labelled(data, "schedule"):
        of, values = f"schedule {label}", {**service, **SCHEDULE_DEFAULTS, "fifo": False}
        yield from _shape(schedule, kinds, values, of)
        values.update({name: schedule[name] for name in ("args", "kwargs") if name in schedule})
        queue = values.get("queue") or queue_of_module(str(values.get("task", "")), str(data.get("package")), queues)
        if queue in queues:
            values["fifo"] = queues[queue].get("fifo") is True
        elif "task" in values:
            known = ", ".join(map(str, queues))
            rule = "must be a queue of the contract; it can be left out if the task is in a queue's module"
            yield Problem("queue", queue, rule, known, of), False
        yield from _broken(SCHEDULE_RULES, values, of)
    yield from _repeated(data.get("schedules", ()), "schedule", "must be unique")


def _item_findings(
    data: Mapping[str, Any],
    kind: str,
    kinds: Mapping[str, str],
    rules: Sequence[Rule],
    service: Mapping[str, Any],
    derived: Sequence[Mapping[str, Any]],
) -> Iterator[Finding]:
    """Yield what is wrong in the defaults, then what is wrong in each queue or worker and not in the defaults.

    Args:
        data: the contract.
        kind: `queue` or `worker`.
        kinds: types of the fields.
        rules: the rules of a queue or worker.
        service: valid values of the service, to which rules refer.
        derived: further values of each queue or worker, to which rules refer.
    """
    section, values = f"{kind}_defaults", dict(service)
    of_all = {name: kinds[name] for name in kinds if name not in OF_ONE}
    found = [*_shape(data[section], of_all, values, section, complete=False), *_broken(rules, values, section)]
    yield from found
    known = {(problem.field, problem.rule, repr(problem.value)) for problem, _ in found}
    defaults = {name: value for name, value in data[section].items() if name in of_all}
    for (label, item), more in zip(_labelled(data, kind), derived, strict=True):
        values, of = {**service, **more}, f"{kind} {label}"
        for problem, is_advice in (*_shape({**defaults, **item}, kinds, values, of), *_broken(rules, values, of)):
            if (problem.field, problem.rule, repr(problem.value)) not in known:
                yield problem, is_advice


def _assignments(data: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield workers whose queues are unknown or no list, queues that two would serve, and names that two have."""
    known = [queue.get("name") for queue in data["queues"]]
    taken: dict[str, str] = {}
    wrong = False
    for label, worker in _labelled(data, "worker"):
        served, of = texts(worker.get("queues")), f"worker {label}"
        if not 1 <= len(served) <= MAX_QUEUES_OF_WORKER:
            rule = f"must list the names of 1 to {MAX_QUEUES_OF_WORKER} queues for a worker, most urgent first"
            fewer = served[:MAX_QUEUES_OF_WORKER] or known[:1]
            example = [worker["queues"]] if worker.get("queues") in known else fewer
            yield Problem("queues", worker.get("queues"), rule, json.dumps(example), of), False
            wrong = True
            continue
        for name in served:
            if name not in known:
                yield Problem("queues", name, "must be queues of the contract", ", ".join(map(str, known)), of), False
                wrong = True
            elif name in taken:
                other = (
                    f"nor one that worker {taken[name]} serves" if taken[name] != label else "or its order is unclear"
                )
                rule = f"must not list a queue twice, {other}"
                yield Problem("queues", name, rule, "each queue in one worker", of), False
            taken[name] = label
    if not wrong:  # Otherwise a queue may only seem to have a worker of its own.
        rule = "must be unique; a queue that no worker lists has a worker of its name"
        yield from _repeated(_assigned(data)["workers"], "worker", rule)


def _assigned(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the effective contract, also if the queues of a worker are no list of names."""
    return effective({**data, "workers": [{**each, "queues": texts(each.get("queues"))} for each in data["workers"]]})


def _clashes(contract: Contract) -> Iterator[Problem]:
    """Yield names of queues at SQS that two queues or dead-letter queues have, or that are too long."""
    owners: dict[tuple[str, str], tuple[Queue, bool]] = {}
    of_schedules = contract.schedule_dead_letter_queue_name(ENVIRONMENT_IN_NAMES) if contract.uses_scheduler else ""
    for queue, dead in ((queue, dead) for queue in contract.queues for dead in (False, True)):
        field, of = "dead_letter_queue_name" if dead else "queue_name", f"queue {queue.name}"
        name = contract.queue_name(queue, ENVIRONMENT_IN_NAMES, dead=dead)
        owner, is_dead = owners.setdefault((queue.account, name), (queue, dead))
        may_share = dead and is_dead and not queue.managed and not owner.managed
        if owner is not queue and not may_share:
            whose = f"the dead-letter queue of {owner.name}" if is_dead else f"queue {owner.name}"
            yield Problem(field, name, f"must not be the name of {whose}", "another name", of)
        if name == of_schedules:
            yield Problem(field, name, "must not be the name of the dead-letter queue of schedules", "another name", of)
        if longest_name_characters(name) > MAX_NAME_CHARACTERS:
            rule = f"must be at most {MAX_NAME_CHARACTERS} characters in the environment {LONGEST_ENVIRONMENT}"
            yield Problem(field, name, rule, name.partition("{")[0][:40].strip("-") or "dead-letters", of)


def _other_tasks(data: Mapping[str, Any]) -> dict[str, int]:
    """Return for each queue how long a message may wait in its worker behind the tasks of other queues."""
    whole = _assigned(data)
    limits = {str(queue.get("name")): queue.get("hard_limit_seconds") for queue in whole["queues"]}
    waits: dict[str, int] = {}
    for worker in whole["workers"]:
        known = [limits.get(name) for name in worker["queues"]]
        longest = max((limit for limit in known if isinstance(limit, int)), default=0)
        waits.update(dict.fromkeys(worker["queues"], (len(worker["queues"]) - 1) * longest))
    return waits


def _labelled(data: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every queue or worker with its name, or its number if it has none."""
    for index, item in enumerate(data.get(f"{kind}s", ())):
        name = item.get("name")
        yield (name if isinstance(name, str) and name else f"number {index + 1}"), item


def _repeated(items: Iterable[Mapping[str, Any]], kind: str, rule: str) -> Iterator[Finding]:
    """Yield names that are used twice."""
    used: set[object] = set()
    for name in (item.get("name") for item in items):
        if isinstance(name, str) and name in used:
            yield Problem("name", name, rule, f"each {kind} once", f"{kind} {name}"), False
        used.add(str(name))


def _kinds(shape: type, absent: Sequence[str]) -> dict[str, str]:
    """Return the types of the fields of a part of the contract."""
    return {field.name: str(field.type) for field in fields(shape) if field.name not in absent}


def _shape(
    data: Mapping[str, Any],
    kinds: Mapping[str, str],
    fitting: dict[str, Any],
    of: str = "",
    complete: bool = True,
    more: Sequence[str] = (),
) -> Iterator[Finding]:
    """Yield fields that are missing, unknown or of the wrong type; put the valid ones into `fitting`.

    Those of the wrong type are removed from it, so that no rule compares others with a default instead.

    Args:
        data: the fields.
        kinds: the types of all known fields.
        fitting: where valid fields are put.
        of: what the fields belong to; see `Problem`.
        complete: whether a missing field is a problem.
        more: further known names.
    """
    known = list(dict.fromkeys((*kinds, *more)))
    for name in (name for name in data if name not in kinds):
        near = get_close_matches(str(name), known, 1)
        known_ones = near[0] if near else "one of " + ", ".join(known)
        instead = known_ones
        if name in _OF_WORKER and of.startswith("queue"):
            instead = "a value of its worker"
        elif of and name in _OF_SERVICE:
            instead = "the top level of contract.json"
        yield Problem(str(name), data[name], "is not part of the contract", instead, of), False
    for name, kind in kinds.items():
        if name not in data:
            if complete and name not in OPTIONAL:
                yield Problem(name, None, "is missing", _INSTEAD.get(kind, ""), of), False
        elif kind in _KINDS:
            value = data[name]
            # In Python, true is an int, and comparisons with NaN are always false.
            fits = isinstance(value, _KINDS[kind]) and (kind == "bool" or not isinstance(value, bool))
            if fits and (kind in ("str", "bool") or -math.inf < value < math.inf):
                fitting[name] = value
            else:
                fitting.pop(name, None)
                yield Problem(name, value, f"must be {_KIND_NAMES[kind]}", _instead(value, kind), of), False


def _instead(value: object, kind: str) -> str:
    """Return what to write in place of a value of the wrong type."""
    if isinstance(value, str) and re.fullmatch(_IN_QUOTES.get(kind, "(?!)"), value):
        return f"{value} without quotes"
    return _INSTEAD[kind]


def _broken(rules: Sequence[Rule], values: Mapping[str, Any], of: str = "") -> Iterator[Finding]:
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
        yield Problem(rule.field, given[rule.field], explained, suggestion, of, rule.source), rule.advice
        if isinstance(suggestion, type(value)) and not rule.advice:
            values[rule.field] = suggestion
