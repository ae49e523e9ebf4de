"""What tests ask the broker; a module for each."""

from __future__ import annotations

from typing import Any

from ... import options


def chosen(contract: Any) -> Any:
    """Return what asks the broker that a contract names."""
    return options.load(__name__, contract.broker)
