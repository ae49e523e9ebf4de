"""What workers run on. On EC2 a lifecycle hook lets a machine wait for its worker, so the worker need not know."""

from __future__ import annotations

from typing import Any

from .. import options
from ..contract import Contract


def steps(contract: Contract) -> tuple[type[Any], ...]:
    """Return what to add to a worker."""
    return options.load(__name__, contract.compute).STEPS if contract.compute == "ecs" else ()
