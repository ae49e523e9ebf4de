"""Filter patterns of CloudWatch Logs for JSON log events, as far as the module's patterns use them.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping
from typing import Any

_TERM = re.compile(r'\$\.(\w+) (=|!=) (\*|"[^"]*")')


def matches(pattern: str, event: Mapping[str, Any]) -> bool:
    """Return whether a log event matches a pattern.

    Raises:
        ValueError: the pattern has something else than comparisons of fields with text, or with `*`.
    """
    inner = re.fullmatch(r"\{ (.*) \}", pattern)
    if inner is None:
        raise ValueError(pattern)
    terms = _TERM.sub(lambda term: str(_holds(*term.groups(), event)), inner[1])
    if not re.fullmatch(r"(?:True|False|&&|\|\||[() ])+", terms):
        raise ValueError(pattern)
    return bool(eval(terms.replace("&&", "and").replace("||", "or")))


def _holds(field: str, operator: str, wanted: str, event: Mapping[str, Any]) -> bool:
    if field not in event:
        return False
    same = wanted == "*" or fnmatch.fnmatchcase(str(event[field]), json.loads(wanted))
    return same == (operator == "=")


def published(metric: Mapping[str, Any], pattern: str, event: Mapping[str, Any]) -> tuple[dict[str, str], float] | None:
    """Return the dimensions and the value that a metric filter publishes for an event; None for nothing.

    Args:
        metric: the filter's `metric_transformation`.
        pattern: the filter's pattern.
        event: the log event.

    Raises:
        ValueError: the value is of a field that the pattern does not name.
    """
    fields = {name: field.removeprefix("$.") for name, field in metric["dimensions"].items()}
    if not matches(pattern, event) or not all(isinstance(event.get(field), str) for field in fields.values()):
        return None
    value = metric["value"]
    if value.startswith("$."):
        if f"{value} = *" not in pattern:
            raise ValueError(f"{value} is not in {pattern}")
        value = event[value.removeprefix("$.")]
    return {name: event[field] for name, field in fields.items()}, float(value)
