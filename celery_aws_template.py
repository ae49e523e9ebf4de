"""Jinja extension named in cookiecutter.json: the way from cookiecutter to hooks/answers.py.

A hook cannot see the template's folder, but cookiecutter and cruft both put that folder on
`sys.path` while they render. The filters are loaded anew when their files have changed, because
`cruft update` renders two versions of the template in one process and would otherwise meet the
second with the filters of the first. For the same reason this file should never need to change.
"""

from __future__ import annotations

import functools
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateSyntaxError
from jinja2.ext import Extension

TEMPLATE = Path(__file__).parent
ANSWERS = TEMPLATE / "hooks" / "answers.py"
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
# What it reads and remembers: the contract, and the rules.
VERSIONED = (ANSWERS, PROJECT / "contract.json", PROJECT / "chassis" / "celery_aws" / "contract.py")

# One line whose only Jinja is names of answers: nothing that could span its parts, as comments, tags and strings can.
PATH = re.compile(r"[^{}\r\n]*({{cookiecutter\.[a-z_]+}}[^{}\r\n]*)*")


@functools.cache
def answers(*modified_ns: int) -> dict[str, Any]:
    """Load hooks/answers.py, once for each version of it and of what it reads."""
    return runpy.run_path(str(ANSWERS))


class TemplatedPath:
    """Renders the path of a file part by part: most parts are no templates, and the rest come again and again."""

    def __init__(self, parts: list[str], compiled: Callable[[str], Any]) -> None:
        self.parts, self.compiled = parts, compiled

    def render(self, *context: Any, **more: Any) -> str:
        """Return the path."""
        return "/".join(self.compiled(part).render(*context, **more) if "{" in part else part for part in self.parts)


class Answers(Extension):
    """Brings the filters of hooks/answers.py, and its check of whatever is rendered."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        loaded = answers(*(path.stat().st_mtime_ns for path in VERSIONED))
        environment.filters.update(loaded["FILTERS"])
        environment.finalize = loaded["refuse_wrong_answers"]
        compiled = environment.from_string
        compiled_once = functools.cache(compiled)

        def from_string(source: Any, *rest: Any, **options: Any) -> Any:
            if isinstance(source, str) and PATH.fullmatch(source):
                return TemplatedPath(source.split("/"), compiled_once)
            try:
                return compiled(source, *rest, **options)
            except TemplateSyntaxError:
                # An answer given as key=value, which cookiecutter renders: let the rules refuse it by its name.
                return compiled("{{ as_it_is }}", globals={"as_it_is": source})

        environment.from_string = from_string  # type: ignore[method-assign]
