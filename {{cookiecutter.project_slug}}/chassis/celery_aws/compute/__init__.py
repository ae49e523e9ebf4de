"""Integration of workers with the compute service. EC2 needs none: a lifecycle hook waits for the worker."""

from __future__ import annotations

from typing import Any

from .. import options
from ..contract import Contract


def steps(contract: Contract) -> tuple[type[Any], ...]:
    """Return the bootsteps to add to a worker."""
    return options.load(__name__, contract.compute).STEPS if contract.compute == "ecs" else ()
