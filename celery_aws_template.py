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

ANSWERS = Path(__file__).parent / "hooks" / "answers.py"


@functools.cache
def answers(source: Path, modified_ns: int) -> dict[str, Any]:
    """Load one version of hooks/answers.py."""
    return runpy.run_path(str(source))


class Answers(Extension):
    """Brings the filters of hooks/answers.py, and its check of whatever is rendered."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        loaded = answers(ANSWERS, ANSWERS.stat().st_mtime_ns)
        environment.filters.update(loaded["FILTERS"])
        environment.finalize = loaded["refuse_wrong_answers"]
