"""The contract of a service: reading, checking and derived values.

`contract.json` is the single source of names, numbers and choices, and `rules.py` of the rules
between them. The service, its tests and the emulator read both. The template runs these modules to
refuse invalid answers, so they import only the standard library.
"""

from __future__ import annotations

from .model import (
    CHOICES,
    HAND_OVER_SECONDS,
    OPTION_NAMES,
    SQS_ALONE,
    STOP_MARGIN_SECONDS,
    Contract,
    Queue,
    names_of,
)
from .reading import ContractError, Problem, advice, parse, problems, read
from .rules import LONGEST_SERVICE_NAME, QUEUE_RULES, SERVICE_RULES

__all__ = [
    "CHOICES",
    "HAND_OVER_SECONDS",
    "LONGEST_SERVICE_NAME",
    "OPTION_NAMES",
    "QUEUE_RULES",
    "SERVICE_RULES",
    "SQS_ALONE",
    "STOP_MARGIN_SECONDS",
    "Contract",
    "ContractError",
    "Problem",
    "Queue",
    "advice",
    "names_of",
    "parse",
    "problems",
    "read",
]
