"""What all commands share; it imports little, so that they start fast."""

from __future__ import annotations

import math
from typing import Any

import click


class Failure(click.ClickException):
    """The command could not do what it was asked to."""

    exit_code = 2


class Number(click.FloatRange):
    """A number on the command line; click takes "nan" and "inf" for numbers as well, and within any bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return it."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number
