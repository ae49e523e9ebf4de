"""Jinja extension named in cookiecutter.json: the way from cookiecutter to hooks/answers.py.

A hook cannot see the template's folder, but cookiecutter and cruft both put that folder on
`sys.path` while they render. The filters are loaded anew for every environment, because
`cruft update` renders two versions of the template in one process and would otherwise meet the
second with the filters of the first. For the same reason this file should never need to change.
"""

from __future__ import annotations

import functools
import runpy
from pathlib import Path
from typing import Any

from jinja2 import Environment
from jinja2.ext import Extension

TEMPLATE = Path(__file__).parent
ANSWERS = TEMPLATE / "hooks" / "answers.py"
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
# What it reads and remembers: the contract, and the rules.
VERSIONED = (ANSWERS, PROJECT / "contract.json", PROJECT / "src" / "{{cookiecutter.__package}}" / "contract.py")


@functools.cache
def answers(*modified_ns: int) -> dict[str, Any]:
    """Load hooks/answers.py, once for each version of it and of what it reads."""
    return runpy.run_path(str(ANSWERS))


class Plain:
    """Stands for a template that is no template: most names of files are none, and compiling each takes time."""

    def __init__(self, text: str) -> None:
        self.text = text

    def render(self, *_: Any, **__: Any) -> str:
        """Return the text."""
        return self.text


class Answers(Extension):
    """Brings the filters of hooks/answers.py, and its check of whatever is rendered."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        loaded = answers(*(path.stat().st_mtime_ns for path in VERSIONED))
        environment.filters.update(loaded["FILTERS"])
        environment.finalize = loaded["refuse_wrong_answers"]
        compiled = environment.from_string

        def from_string(source: Any, *rest: Any, **options: Any) -> Any:
            plain = isinstance(source, str) and "{" not in source and "\n" not in source
            return Plain(source) if plain else compiled(source, *rest, **options)

        environment.from_string = from_string  # type: ignore[method-assign]
