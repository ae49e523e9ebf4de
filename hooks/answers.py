"""What turns answers into a contract, and refuses those that break its rules.

The answers become a contract by rendering the project's own `contract.json`, and the rules are
those of the project's own `contract.py`: what is checked is what would be written.
"""

from __future__ import annotations

import json
import logging
import re
import runpy
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment, pass_environment

TEMPLATE = Path(__file__).parents[1]
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"

QUESTION_OF_FIELD = {"service": "project_slug", "package": "project_slug", "name": "queues"}
"""Contract fields whose question has another name."""


def quoted(text: str) -> str:
    """Write a string so that JSON, TOML and YAML all read it back as it was."""
    return json.dumps(text, ensure_ascii=False)


def number(text: str) -> str:
    """Write digits as a JSON number, and anything else as a string for the rules to refuse."""
    text = str(text).strip()
    return str(int(text)) if re.fullmatch(r"-?[0-9]{1,15}", text, re.ASCII) else quoted(text)


def names(text: str) -> list[str]:
    """Split a comma-separated answer."""
    return [name.strip() for name in str(text).split(",") if name.strip()]


@pass_environment
def refuse_wrong_answers(environment: Environment, answers: Mapping[str, Any]) -> str:
    """Return nothing, or end the generation with the list of what is wrong.

    Raises:
        FailedHookException: a rule is broken. Of all that a template can raise, this is the one
            that cookiecutter reports by its message alone.
    """
    source = (PROJECT / "contract.json").read_text(encoding="utf-8")
    contract = json.loads(environment.from_string(source).render(cookiecutter=answers))
    rules = runpy.run_path(str(PROJECT / "src" / "{{cookiecutter.__package}}" / "contract.py"))
    found = rules["problems"](contract)
    if not found:
        return ""
    raise _refusal(answers, found)


def _refusal(answers: Mapping[str, Any], found: list[Any]) -> FailedHookException:
    """Say every problem once, though each answer fills every queue of the contract."""
    wrong: dict[str, list[str]] = {}
    for problem in found:
        question = QUESTION_OF_FIELD.get(problem.field, problem.field)
        # The queue matters only where the answer is about one queue, and then it is the value.
        text = str(problem).removeprefix(f"queue {problem.queue}: ")
        text = question + text.removeprefix(problem.field)
        if text not in wrong.setdefault(question, []):
            wrong[question].append(text)
    right = [
        f"{name}={shlex.quote(str(answer))}"
        for name, answer in answers.items()
        if not name.startswith("_") and name not in wrong and answer
    ]
    listed = [text for texts in wrong.values() for text in texts]
    count = "1 answer does" if len(wrong) == 1 else f"{len(wrong)} answers do"
    return _quiet(
        FailedHookException(
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
    )


def _quiet(refusal: FailedHookException) -> FailedHookException:
    """Keep cookiecutter from logging a traceback of this one exception where a hook raises it."""
    log = logging.getLogger("cookiecutter.hooks")

    def drop(record: logging.LogRecord) -> bool:
        mine = bool(record.exc_info and record.exc_info[1] is refusal)
        if mine:
            log.removeFilter(drop)
        return not mine

    log.addFilter(drop)
    return refusal


FILTERS: Mapping[str, Callable[..., Any]] = {
    "quoted": quoted,
    "number": number,
    "names": names,
    "refuse_wrong_answers": refuse_wrong_answers,
}
