"""What an environment has, compared with the contract; a module for each broker and result backend.

It changes nothing and sends no message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import options
from .findings import Finding

ROLES = ("operator", "worker", "producer")
"""Whose permissions can be looked at."""


def findings(here: Any, role: str) -> Iterator[Finding]:
    """Make all checks of an environment, one after the other.

    Args:
        here: the environment.
        role: one of `ROLES`.
    """
    yield from options.load(__name__, here.contract.broker).findings(here, role)
