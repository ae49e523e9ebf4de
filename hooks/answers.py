"""What turns answers into a contract, refuses those that break its rules, and tells what follows.

The answers become a contract by rendering the project's own `contract.json`, and the rules are
those of the project's own chassis: what is checked is what would be written. One rule is the
generator's own: no service is called like something that its dependencies bring.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment, pass_context, pass_environment
from jinja2.runtime import Context

TEMPLATE = Path(__file__).parents[1]
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
TAKEN_NAMES = TEMPLATE / "hooks" / "taken_names.txt"

QUESTION_OF_FIELD = {"service": "project_slug", "package": "__package", "name": "queues", "max": "workers_max"}
"""Contract fields whose question has another name; `__package` is asked by nobody, but replayed."""


def quoted(text: str) -> str:
    """Write a string so that JSON, TOML and YAML all read it back as it was."""
    return json.dumps(text, ensure_ascii=False)


def number(text: str) -> str:
    """Write digits as a JSON number, and anything else as a string for the rules to refuse."""
    text = str(text).strip(" ")  # What else counts as a space is none that anybody types.
    return str(int(text)) if re.fullmatch(r"-?[0-9]{1,15}", text, re.ASCII) else quoted(text)


def groups(text: str) -> list[list[str]]:
    """Split the answer about queues into those of each worker: `high+default, low`."""
    parts = [[name.strip() for name in part.split("+") if name.strip()] for part in str(text).split(",")]
    return [part for part in parts if part]


def names(text: str) -> list[str]:
    """Return the queues of that answer."""
    return [name for part in groups(text) for name in part]


@pass_context
def refuse_wrong_answers(context: Context, value: object) -> object:
    """Let a rendered value pass, or end the generation with the list of what is wrong.

    Jinja calls this with every value that a template puts out. The first template that is rendered
    with all the answers is the name of the project's folder, so nothing has been written yet,
    whether the answers were typed, given, replayed or stored by cruft. A hook would come later: the
    folder is there by then, and cookiecutter prints a traceback below the hook's own words.

    Raises:
        FailedHookException: a rule is broken. Of all that a template can raise, this is the one
            that cookiecutter reports by its message alone.
    """
    answers = context.get("cookiecutter")
    if isinstance(answers, Mapping) and "_template" in answers:  # Missing while questions are asked.
        _checked(context.environment, answers)
    return value


@pass_environment
def plan(environment: Environment, answers: Mapping[str, Any]) -> str:
    """Return, as JSON, what the hook after the generation has to do and to say.

    It is worked out here, where the rules are loaded already, so that the hook starts fast.

    Raises:
        FailedHookException: a rule is broken.
    """
    data = _checked(environment, answers)
    rules = load_rules()
    contract = rules.parse(data)
    return json.dumps(
        {
            "chosen": sorted(contract.option_names),
            "options": sorted(rules.OPTION_NAMES),
            "tasks": f"src/{contract.package}/tasks",
            "modules": [queue.module for queue in contract.queues],
            "report": _report(contract, rules.advice(data), _way_to(contract.service, answers.get("_output_dir"))),
        }
    )


def rules(broker: str) -> str:
    """Return the rules of contracts with a broker, as the rows of a table."""
    return str(load_rules().rows(broker))


@functools.cache
def load_rules() -> Any:
    """Return the package of the contract and its rules, from the chassis.

    Under a name of its own each time: `cruft update` renders two versions of the template in one process.
    """
    folder = PROJECT / "chassis" / "celery_aws" / "contract"
    name, places = f"contract_{time.monotonic_ns()}", [str(folder)]
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise ImportError(f"no package in {folder}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # A cache in there would be baked.
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module


def is_taken(service: str) -> bool:
    """Return whether a service would make a package that a dependency, or Python, already has."""
    lines = TAKEN_NAMES.read_text(encoding="utf-8").splitlines()
    taken = {name for line in lines if not line.startswith("#") for name in line.split()}
    return service.replace("-", "_") in taken


def _taken(service: str) -> list[Any]:
    """Return the problem of a name that is taken, if it is."""
    if not is_taken(service):
        return []
    rules = load_rules()
    rule = "must not make a package that a dependency or Python already has"
    return [rules.Problem("service", service, rule, f"{service}-jobs"[-rules.LONGEST_SERVICE_NAME :])]


_contracts: dict[str, Any] = {}
"""Contracts that hold, by their answers, so that a bake makes and checks its contract once."""


def _checked(environment: Environment, answers: Mapping[str, Any]) -> Any:
    """Make the contract of all the answers; refuse it if it breaks rules."""
    # Without `_template` and its like, which would have this very rendering checked again.
    asked = {name: answers[name] for name in answers if not name.startswith("_") or name == "__package"}
    key = json.dumps(asked)
    if key not in _contracts:
        source = (PROJECT / "contract.json").read_text(encoding="utf-8")
        contract = json.loads(environment.from_string(source).render(cookiecutter=asked))
        if found := [*load_rules().problems(contract), *_taken(contract["service"])]:
            raise _refusal(environment, asked, found)
        _contracts[key] = contract
    return _contracts[key]


def _way_to(project: str, parent: str | None) -> str:
    """Return the project's folder, as whoever typed the command reaches it; cruft does not say where it puts it."""
    folder, typed_in = Path(parent or ".", project), os.environ.get("PWD", "")
    return shlex.quote(str(folder.relative_to(typed_in) if folder.is_relative_to(typed_in) else folder))


def _report(contract: Any, advice: list[Any], folder: str) -> str:
    """Say what follows from the answers, and what to do next."""
    slowest = max(queue.seconds_to_dead_letter for queue in contract.queues)
    longest = max(len(queue.name) for queue in contract.queues)
    idle = contract.idle_requests_per_month
    lines = [
        "",
        f"{contract.project_name} is ready. Its queues, here in the environment production:",
        "",
        *(
            f"  {queue.name:<{longest}}  {contract.queue_name(queue, 'production')}\n"
            f"  {'':<{longest}}  {contract.dead_letter_queue_name(queue, 'production')}"
            for queue in contract.queues
        ),
        "",
        *_shared_workers(contract),
        f"A task that always fails is dead-lettered {_duration(slowest)} after its first failure, or sooner.",
        *([f"A month without a single task costs {idle:,} SQS requests."] if idle else []),
        f"In AWS, tasks can call web APIs through a NAT gateway, which costs about ${_gateway_dollars():.0f} a month;",
        f"`network` in terraform/ offers cheaper ways. `{contract.service} cost` shows all costs of an environment.",
        # Every answer is a default of all queues or workers.
        *("Recommended: " + str(item).removeprefix(f"{item.of}: ") for item in advice),
        "",
        "Next:",
        "",
        f"  cd {folder}",
        "  make dev     # everything on this machine: emulator, workers, a producer and a console",
        "  make test    # its tests, also those with real workers",
        "",
    ]
    return "\n".join(lines)


def _gateway_dollars() -> float:
    """Return the price of a NAT gateway and its address in a month of 730 hours, without traffic."""
    text = (PROJECT / "chassis" / "celery_aws" / "cost" / "stack.json").read_text(encoding="utf-8")
    prices = json.loads(text)["prices"]
    return sum(float(prices[name]["dollars"]) * 730 for name in ("nat_gateway_hour", "public_address_hour"))


def _shared_workers(contract: Any) -> list[str]:
    """Say which workers serve several queues."""
    shared = [worker for worker in contract.workers if len(worker.queues) > 1]
    lines = [f"The worker {worker.name} serves {', '.join(worker.queues)}, most urgent first." for worker in shared]
    return [*lines, ""] if lines else []


def _duration(seconds: float) -> str:
    """Write seconds as people say them."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def _refusal(environment: Environment, answers: Mapping[str, Any], found: list[Any]) -> FailedHookException:
    """Say every problem once, though an answer can break a rule in several queues and workers."""
    wrong: dict[str, list[str]] = {}
    for problem in map(_as_answered, found):
        question = QUESTION_OF_FIELD.get(problem.field, problem.field)
        # The queue matters only where the answer is about one queue, and then it is the value.
        text = str(problem).removeprefix(f"{problem.of}: ")
        text = question + text.removeprefix(problem.field)
        if text not in wrong.setdefault(question, []):
            wrong[question].append(text)
    if "project_slug" in wrong:
        wrong.pop("__package", None)  # It follows from the slug.
    right = [
        f"{name}={shlex.quote(str(answer))}"
        for name, answer in answers.items()
        if not name.startswith("_") and name not in wrong and answer
    ]
    reported = {name: wrong[name] for name in wrong if not _follows(environment, name, answers, wrong)}
    listed = [text for question in answers for text in reported.get(question, [])]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # A console of Windows may lack a character of an answer.
            stream.reconfigure(errors="backslashreplace")
    count = "1 answer does" if len(reported) == 1 else f"{len(reported)} answers do"
    return FailedHookException(
        "\n".join(
            (
                "",
                "To keep your other answers, run the same command again with these behind it:",
                "",
                "  " + " \\\n  ".join(right),
                "",
                f"{count} not fit, and nothing was written:",
                "",
                "\n\n".join("  " + text.replace("\n", "\n  ") for text in listed),
                "",
            )
        )
    )


def _follows(
    environment: Environment, question: str, answers: Mapping[str, Any], wrong: Mapping[str, list[str]]
) -> bool:
    """Return whether an answer is a default that was computed from another wrong answer."""
    default = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8")).get(question, "")
    if not any(f"cookiecutter.{name} " in default for name in wrong):
        return False
    return bool(environment.from_string(default).render(cookiecutter=answers) == answers[question])


def _as_answered(problem: Any) -> Any:
    """Write the queues of a worker as they are answered: `high+default`."""
    if problem.field != "queues" or not isinstance(problem.value, list):
        return problem
    return replace(problem, value="+".join(problem.value), suggestion="+".join(json.loads(problem.suggestion)))


FILTERS: Mapping[str, Callable[..., Any]] = {
    "quoted": quoted,
    "number": number,
    "groups": groups,
    "names": names,
    "plan": plan,
    "rules": rules,
}
