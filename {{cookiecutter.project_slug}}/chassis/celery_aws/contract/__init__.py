"""The service's contract: read it, check it, derive from it.

`contract.json` is the one place for names, numbers and choices; `rules.py` is the one place for the rules between
them. Service, tests and emulator read both, and the template runs these very files to refuse wrong answers: that is why
they need nothing but the standard library.
"""

from __future__ import annotations

from .model import CHOICES, HAND_OVER_SECONDS, SQS_ALONE, STOP_MARGIN_SECONDS, Contract, Queue
from .reading import ContractError, Problem, advice, parse, problems, read
from .rules import LONGEST_SERVICE_NAME, QUEUE_RULES, SERVICE_RULES

__all__ = [
    "CHOICES",
    "HAND_OVER_SECONDS",
    "LONGEST_SERVICE_NAME",
    "QUEUE_RULES",
    "SERVICE_RULES",
    "SQS_ALONE",
    "STOP_MARGIN_SECONDS",
    "Contract",
    "ContractError",
    "Problem",
    "Queue",
    "advice",
    "parse",
    "problems",
    "read",
]
