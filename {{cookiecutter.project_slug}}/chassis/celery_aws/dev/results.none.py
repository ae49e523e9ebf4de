"""No results, so nothing to emulate."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

UNREACHABLE: dict[str, str] = {}
"""Environment variables that fit and lead nowhere, for tests that want no results."""


def in_containers(contract: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return no services for compose.yaml, and no environment variables."""
    return {}, {}


def create_results(contract: Any, stack: ExitStack) -> dict[str, str]:
    """Return no environment variables."""
    return {}
