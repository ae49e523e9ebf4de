"""The emulator's brokers, one module each."""

from __future__ import annotations

from typing import Any

from ... import options


def chosen(contract: Any) -> Any:
    """Return the module that emulates the contract's broker."""
    return options.load(__name__, contract.broker)
