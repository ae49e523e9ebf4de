"""Jinja extension named in cookiecutter.json: the way from cookiecutter to hooks/answers.py.

A hook cannot see the template's folder, but cookiecutter and cruft both put that folder on `sys.path` while they
render. The filters are loaded for each rendering, because `cruft update` renders two versions of the template in one
process and would otherwise meet the second with the filters of the first. For the same reason this file should never
need to change.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateSyntaxError
from jinja2.ext import Extension

ANSWERS = Path(__file__).parent / "hooks" / "answers.py"


class Answers(Extension):
    """Brings the filters of hooks/answers.py, and its check of whatever is rendered."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        loaded = runpy.run_path(str(ANSWERS))
        environment.filters.update(loaded["FILTERS"])
        environment.finalize = loaded["refuse_wrong_answers"]
        compiled = environment.from_string

        def from_string(source: Any, *rest: Any, **options: Any) -> Any:
            try:
                return compiled(source, *rest, **options)
            except TemplateSyntaxError:
                # An answer given as key=value, which cookiecutter renders: let the rules refuse it by its name.
                return compiled("{{ as_it_is }}", globals={"as_it_is": source})

        environment.from_string = from_string  # type: ignore[method-assign]
