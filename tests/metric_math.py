"""Metric math of CloudWatch, as far as the module's expressions use it, and alarms upon it.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Series = list[float | None]
"""A value for each minute, oldest first; None where there is no data."""

EXTRA_MINUTES = 5
"""An alarm reads more than its periods; AWS says how many only by an example, 5 of 3."""

_OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Gt: lambda a, b: float(a > b),
    ast.GtE: lambda a, b: float(a >= b),
    ast.Lt: lambda a, b: float(a < b),
    ast.Eq: lambda a, b: float(a == b),
    ast.And: lambda a, b: float(bool(a) and bool(b)),
    ast.Or: lambda a, b: float(bool(a) or bool(b)),
}


def evaluate(expression: str, metrics: Mapping[str, Series]) -> Series:
    """Return the values of an expression, of metrics that are equally long."""
    minutes = len(next(iter(metrics.values())))
    # Its grammar is Python's, apart from the words that join conditions.
    node = ast.parse(expression.replace(" AND ", " and ").replace(" OR ", " or "), mode="eval").body
    return _value(node, metrics, minutes)


def _value(node: ast.expr, metrics: Mapping[str, Series], minutes: int) -> Series:
    match node:
        case ast.Constant(value=float() | int() as number):
            return [float(number)] * minutes
        case ast.Name(id=name):
            return list(metrics[name])
        case ast.BinOp(left=left, op=op, right=right) | ast.Compare(left=left, ops=[op], comparators=[right]):
            return _combined(type(op), _value(left, metrics, minutes), _value(right, metrics, minutes))
        case ast.BoolOp(op=op, values=[first, *others]):
            found = _value(first, metrics, minutes)
            for other in others:
                found = _combined(type(op), found, _value(other, metrics, minutes))
            return found
        case ast.Call(func=ast.Name(id="FILL"), args=[inner, ast.Name(id="REPEAT")]):
            return _repeated(_value(inner, metrics, minutes))
        case ast.Call(func=ast.Name(id="FILL"), args=[inner, ast.Constant(value=number)]):
            return [number if each is None else each for each in _value(inner, metrics, minutes)]
        case ast.Call(func=ast.Name(id="IF"), args=[condition, *branches]):
            then, otherwise = (*(_value(each, metrics, minutes) for each in branches), [None] * minutes)[:2]
            tested = zip(_value(condition, metrics, minutes), then, otherwise, strict=True)
            return [None if is_true is None else yes if is_true else no for is_true, yes, no in tested]
    raise ValueError(ast.dump(node))


def _combined(kind: type, left: Series, right: Series) -> Series:
    """Return what an operator makes of two series; a minute that one of them lacks has no value."""
    return [
        None if a is None or b is None or (kind is ast.Div and b == 0) else _OPERATORS[kind](a, b)
        for a, b in zip(left, right, strict=True)
    ]


def _repeated(values: Series) -> Series:
    """Return a series with the last value in place of each gap; there is none before the first value."""
    last, found = None, []
    for value in values:
        last = value if value is not None else last
        found.append(last)
    return found


@dataclass(frozen=True)
class Alarm:
    """An alarm upon an expression, each of whose periods is a minute."""

    expression: str
    breaches: Callable[[float], bool]
    periods: int
    """How many of the last minutes have to breach, all of them."""
    if_missing: str = "missing"
    """How minutes without data count, if there are too few with data."""

    @property
    def minutes_read(self) -> int:
        """How many minutes it asks for."""
        return self.periods + EXTRA_MINUTES

    def value_in_alarm(self, metrics: Mapping[str, Series]) -> float | None:
        """Return the newest value if the alarm is in ALARM, else None.

        https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
        """
        known = [value for value in evaluate(self.expression, metrics) if value is not None]
        newest = known[-self.periods :]
        if not newest or (len(newest) < self.periods and self.if_missing != "breaching"):
            return None
        return newest[-1] if all(map(self.breaches, newest)) else None
