"""Compares an environment with the contract; one module per broker and result backend.

The checks change nothing and send no messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import options
from .findings import Finding

ROLES = ("operator", "worker", "producer")
"""The roles whose permissions can be checked."""


def findings(env: Any, role: str) -> Iterator[Finding]:
    """Run all checks of an environment.

    Args:
        env: the environment.
        role: the role whose permissions are checked; one of `ROLES`.
    """
    yield from options.load(__name__, env.contract.broker).findings(env, role)
