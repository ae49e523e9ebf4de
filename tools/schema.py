"""Writes the JSON schema of contracts, for editors, from the contract's fields and rules: `make schema`.

It is the same in every service. What a rule says of one field alone is in it; what it says of several is left to
`contract`, which also says what to do. So whatever the rules accept, the schema accepts. It is of draft 7, which
editors know best: https://code.visualstudio.com/docs/languages/json#_json-schemas-and-settings
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import keyword
import re
import runpy
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).parents[1]
CHASSIS = TEMPLATE / "{{cookiecutter.project_slug}}" / "chassis"
TARGET = CHASSIS / "contract.schema.json"
RULES = runpy.run_path(str(TEMPLATE / "hooks" / "answers.py"))["load_rules"]()

OF_ONE = RULES.checking.OF_ONE

Schema = dict[str, Any]

KINDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
UNITS = {"_seconds": "In seconds.", "_minutes": "In minutes.", "_bytes": "In bytes."}
"""What is said of a field, by how its name ends."""

NAME = RULES.rules.NAME
_CONTROL = r"\u0000-\u001f\u007f-\u00a0\u2028\u2029"


def plain(longest: int) -> str:
    """Return the pattern of one printable line that is no template; spaces around it do not count."""
    return rf"^(?!.*\{{[%#{{]) *[^ {_CONTROL}]([^{_CONTROL}]{{0,{longest - 2}}}[^ {_CONTROL}])? *$"


PHYSICAL = {"pattern": f"^{RULES.rules.PHYSICAL_NAME}$", "maxLength": RULES.rules.MAX_NAME_CHARACTERS + 2}
"""The name of a queue at SQS; `{environment}` is two characters longer than the longest environment's name."""

MORE: dict[str, dict[str, Schema]] = {
    "service": {
        "project_name": {"pattern": plain(60)},
        "description": {"pattern": plain(200)},
        "service": {"pattern": f"^{NAME}$", "maxLength": RULES.LONGEST_SERVICE_NAME},
        "package": {"pattern": "^[a-z][a-z0-9_]*$"},
        "region": {"pattern": f"^(?!cn-){RULES.rules.REGION}$"},
        "alarm_email": {
            "pattern": r"^([A-Za-z0-9.!#$%&*+/=?^_|~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)?$",
            "maxLength": 254,
        },
        **{choice: {"enum": list(options)} for choice, options in RULES.CHOICES.items()},
    },
    "queue": {
        "name": {
            "pattern": f"^(?!.*-dlq$){NAME}$",
            "maxLength": RULES.rules.MAX_NAME_CHARACTERS,
            "not": {"enum": keyword.kwlist},
        },
        "queue_name": PHYSICAL,
        "dead_letter_queue_name": PHYSICAL,
        "account": {"pattern": f"^{RULES.rules.ACCOUNT}$"},
        "max_countdown_seconds": {"minimum": 0},
        "visibility_timeout_seconds": {"maximum": 43_200},
    },
    "worker": {
        "name": {"pattern": f"^{NAME}$", "maxLength": 63},
        "cpu_units": {"enum": [*RULES.rules.FARGATE]},
        "memory_mib": {"minimum": 512, "maximum": 122_880, "multipleOf": 512},
        "instance_type": {"pattern": f"^{RULES.rules.INSTANCE_TYPE}$"},
    },
    "schedule": {
        "name": {"pattern": f"^{NAME}$", "maxLength": 64},
        "task": {"pattern": "^[!-~]{1,255}$"},
        "group": {"pattern": "^[!-~]{0,128}$"},
        "at": {"pattern": "^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})?$"},
        "timezone": {"maxLength": 50},
    },
}
"""What rules say in Python, by field."""


def docstrings() -> dict[str, dict[str, str]]:
    """Return what the contract's classes say of their fields."""
    source = (CHASSIS / "celery_aws" / "contract" / "model.py").read_text(encoding="utf-8")
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return {each.name: dict(_described(each.body)) for each in classes}


def _described(body: list[ast.stmt]) -> list[tuple[str, str]]:
    found = []
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found.append((ast.unparse(field.target), str(text.value.value)))
    return found


def bounds(rules: Any, broker: str) -> dict[str, Schema]:
    """Return the least and the most of fields, as the rules of all brokers or of one say it."""
    found = {}
    for rule in rules:
        said = re.fullmatch(r"must be between (\S+) and (\S+)", rule.says)
        if said and rule.broker == broker:
            low, high = map(json.loads, said.groups())
            found[rule.field] = {"minimum": low, "maximum": high}
    return found


def fields(of: str, shape: Any, rules: Any) -> dict[str, Schema]:
    """Return the schemas of the fields of the service, of a queue or of a worker."""
    says, limits, found = docstrings()[shape.__name__], bounds(rules, ""), {}
    of_sqs = {name: limit for name, limit in bounds(rules, "sqs").items() if name in RULES.SQS_ALONE}
    for field in dataclasses.fields(shape):
        if str(field.type) in KINDS:
            unit = next((text for end, text in UNITS.items() if field.name.endswith(end)), "")
            only = "SQS only." if field.name in RULES.SQS_ALONE else ""
            found[field.name] = {
                "description": " ".join(filter(None, (says[field.name], unit, only))),
                "type": KINDS[str(field.type)],
                **limits.get(field.name, {}),
                **of_sqs.get(field.name, {}),
                **MORE[of].get(field.name, {}),
            }
    return found


def one_of(of: str, known: dict[str, Schema], required: list[str], more: Schema | None = None) -> Schema:
    """Return the schema of an object with these fields of a queue or worker, and no others."""
    properties = {name: {"$ref": f"#/definitions/{of}/{name}"} for name in known}
    return {
        "type": "object",
        "properties": {**properties, **(more or {})},
        "required": required,
        "additionalProperties": False,
    }


def everywhere(kind: str, properties: Schema) -> Schema:
    """Return what holds for the defaults of queues or workers, and for each of them."""
    inner = {"properties": properties}
    return {f"{kind}_defaults": inner, f"{kind}s": {"items": inner}}


def without(kind: str, names: tuple[str, ...]) -> Schema:
    """Return what refuses fields of queues or workers."""
    return everywhere(kind, dict.fromkeys(names, False))


def chosen(choice: str, option: str) -> Schema:
    """Return what holds if an option is chosen."""
    return {"properties": {choice: {"const": option}}, "required": [choice]}


def conditions(known: Schema) -> list[Schema]:
    """Return what depends on the broker and on the compute."""
    sqs, on_queue = RULES.SQS_ALONE, {field.name for field in dataclasses.fields(RULES.Queue)}
    of_queue = tuple(name for name in sqs if name in on_queue)
    of_service = [name for name in sqs if name in known]
    rabbitmq = {
        **dict.fromkeys(of_service, False),
        "schedules": {"items": {"properties": {"flexible_window_minutes": False}}},
        **everywhere("queue", {**dict.fromkeys(of_queue, False), "max_countdown_seconds": {"maximum": 2**28 - 1}}),
        **everywhere("worker", {"min": bounds(RULES.WORKER_RULES, "rabbitmq")["min"]}),
    }
    on_sqs = {
        "properties": everywhere("worker", {"min": bounds(RULES.WORKER_RULES, "sqs")["min"]}),
        "required": [name for name in of_service if name not in RULES.model.OPTIONAL],
    }
    stop = {
        "soft_shutdown_seconds": {"maximum": 120 - RULES.STOP_MARGIN_SECONDS},
        "stop_timeout_seconds": {"maximum": 120},
    }
    return [
        {"if": chosen("broker", "rabbitmq"), "then": {"properties": rabbitmq}, "else": on_sqs},
        {
            "if": chosen("compute", "ec2"),
            "then": {"properties": without("worker", RULES.SIZES["ecs"])},
            "else": {"properties": {**stop, **without("worker", RULES.SIZES["ec2"])}},
        },
    ]


def schema() -> Schema:
    """Return the schema."""
    known = fields("service", RULES.Contract, RULES.SERVICE_RULES)
    queue = fields("queue", RULES.Queue, RULES.QUEUE_RULES)
    worker = fields("worker", RULES.Worker, RULES.WORKER_RULES)
    schedule = fields("schedule", RULES.Schedule, RULES.SCHEDULE_RULES)
    says = docstrings()
    served = {
        "description": says["Worker"]["queues"],
        "type": "array",
        "items": {"type": "string"},
        "minItems": 1,
        "maxItems": RULES.checking.MAX_QUEUES_OF_WORKER,
        "uniqueItems": True,
    }
    of_all = [{name: value for name, value in each.items() if name not in OF_ONE} for each in (queue, worker)]
    listed = {
        "description": says["Contract"]["queues"],
        "type": "array",
        "minItems": 1,
        "maxItems": RULES.checking.MAX_QUEUES,
    }
    working = {"description": says["Contract"]["workers"], "type": "array"}
    sections: Schema = {
        "$schema": {"description": "Where this schema is, for editors.", "type": "string"},
        "queue_defaults": {
            "description": "Values of every queue that does not state its own.",
            **one_of("queue", of_all[0], []),
        },
        "queues": {**listed, "items": one_of("queue", queue, ["name"])},
        "worker_defaults": {
            "description": "Values of every worker that does not state its own.",
            **one_of("worker", of_all[1], []),
        },
        "workers": {**working, "items": one_of("worker", worker, ["name", "queues"], {"queues": served})},
    }
    arguments = {
        "args": {"description": says["Schedule"]["args"], "type": "array"},
        "kwargs": {"description": says["Schedule"]["kwargs"], "type": "object"},
    }
    scheduled = {
        "description": says["Contract"]["schedules"],
        "type": "array",
        "maxItems": RULES.checking.MAX_SCHEDULES,
        "items": one_of("schedule", schedule, ["name", "task"], arguments),
    }
    routes = {"description": says["Contract"]["routes"], "type": "object", "additionalProperties": {"type": "string"}}
    always = [name for name in known if name not in (*RULES.SQS_ALONE, *RULES.model.OPTIONAL)]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "contract.json",
        "description": "Names, numbers and choices of a Celery service; docs/timeouts.md explains the values.",
        "type": "object",
        "properties": {**sections, "schedules": scheduled, **known, "routes": routes},
        "required": [*(name for name in sections if name != "$schema"), *always],
        "additionalProperties": False,
        "allOf": conditions(known),
        "definitions": {"queue": queue, "worker": worker, "schedule": schedule},
    }


def text() -> str:
    """Return the text of the file."""
    return json.dumps(schema(), indent=2, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
