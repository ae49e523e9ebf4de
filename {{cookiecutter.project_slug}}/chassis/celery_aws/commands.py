"""Base classes of all commands; few imports, so that commands start fast."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from typing import Any

import click

from . import service
from .contract import ContractError


class Failure(click.ClickException):
    """The command failed; exit code 2."""

    exit_code = 2


def replace_unencodable() -> None:
    """Print a question mark in place of a character that the terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class Documented(click.Command):
    """A command whose help ends with `examples`: command lines without the service's name.

    In them, `{queue}`, `{worker}` and `{module}` stand for the first queue, its worker and its module of tasks.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        names = _first_names()
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"  {ctx.find_root().info_name} {example.format(**names)}\n")


def _first_names() -> dict[str, str]:
    """Return the names that examples use; placeholders if the contract cannot be read, so that help is shown."""
    try:
        contract = service.contract()
    except (ContractError, OSError):
        return {name: f"<{name}>" for name in ("queue", "worker", "module")}
    queue = contract.queues[0]
    return {"queue": queue.name, "worker": contract.worker_of(queue).name, "module": queue.module}


class Number(click.FloatRange):
    """A finite number in a range; click alone accepts "nan" and "inf" in any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert the value, and refuse NaN and infinity."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number
