"""The result backend of the emulator; a module for each, and none for a service that keeps no results."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ... import options


def unreachable(contract: Any) -> dict[str, str]:
    """Return environment variables that are valid and lead nowhere, for tests that want no results."""
    return dict(_chosen(contract).UNREACHABLE) if contract.results != "none" else {}


def in_containers(contract: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the services that compose.yaml needs for results, and the environment variables."""
    return _chosen(contract).in_containers(contract) if contract.results != "none" else ({}, {})


def create(contract: Any, stack: ExitStack) -> dict[str, str]:
    """Create what keeps the results; return the environment variables that lead to it."""
    return _chosen(contract).create(contract, stack) if contract.results != "none" else {}


def _chosen(contract: Any) -> Any:
    return options.load(__name__, contract.results)
