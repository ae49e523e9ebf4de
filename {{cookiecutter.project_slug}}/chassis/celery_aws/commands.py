"""Base classes of all commands; few imports, so that commands start fast."""

from __future__ import annotations

import math
from typing import Any

import click


class Failure(click.ClickException):
    """The command failed; exit code 2."""

    exit_code = 2


class Number(click.FloatRange):
    """A finite number in a range; click alone accepts "nan" and "inf" in any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert the value, and refuse NaN and infinity."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number
