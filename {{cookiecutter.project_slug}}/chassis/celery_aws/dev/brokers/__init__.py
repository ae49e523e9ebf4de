"""The broker of the emulator; a module for each broker."""

from __future__ import annotations

from typing import Any

from ... import options


def chosen(contract: Any) -> Any:
    """Return what emulates the broker that a contract names."""
    return options.load(__name__, contract.broker)
