"""The contract of a service: reading, checking and derived values.

`contract.json` is the single source of names, numbers and choices, and `rules.py` of the rules
between them. The service, its tests and the emulator read both. The template runs these modules to
refuse invalid answers, so they import only the standard library.
"""

from __future__ import annotations

from .checking import ContractError, Problem, advice, problems, read
from .model import (
    BEAT,
    CHOICES,
    ENVIRONMENT_IN_NAMES,
    HAND_OVER_SECONDS,
    OPTION_NAMES,
    SIZES,
    SQS_ALONE,
    STOP_MARGIN_SECONDS,
    Contract,
    Queue,
    Schedule,
    UnknownNameError,
    Worker,
    names_of,
)
from .reading import effective, parse
from .rules import ALL_RULES, LONGEST_SERVICE_NAME, QUEUE_RULES, SCHEDULE_RULES, SERVICE_RULES, WORKER_RULES, rows

__all__ = [
    "ALL_RULES",
    "BEAT",
    "CHOICES",
    "ENVIRONMENT_IN_NAMES",
    "HAND_OVER_SECONDS",
    "LONGEST_SERVICE_NAME",
    "OPTION_NAMES",
    "QUEUE_RULES",
    "SCHEDULE_RULES",
    "SERVICE_RULES",
    "SIZES",
    "SQS_ALONE",
    "STOP_MARGIN_SECONDS",
    "WORKER_RULES",
    "Contract",
    "ContractError",
    "Problem",
    "Queue",
    "Schedule",
    "UnknownNameError",
    "Worker",
    "advice",
    "effective",
    "names_of",
    "parse",
    "problems",
    "read",
    "rows",
]
