"""The emulator's result backends, one module each; none for a service without results."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ... import options


def unreachable(contract: Any) -> dict[str, str]:
    """Return valid environment variables of an unreachable result backend, for tests that need none."""
    return dict(_chosen(contract).UNREACHABLE) if contract.results != "none" else {}


def in_containers(contract: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return services and environment variables of the result backend for compose.yaml."""
    return _chosen(contract).in_containers(contract) if contract.results != "none" else ({}, {})


def create(contract: Any, stack: ExitStack) -> dict[str, str]:
    """Create the result backend; return its environment variables."""
    return _chosen(contract).create(contract, stack) if contract.results != "none" else {}


def _chosen(contract: Any) -> Any:
    return options.load(__name__, contract.results)
