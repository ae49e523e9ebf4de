"""Prices of AWS, with their sources: the files beside this one, each of an option of the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..contract import CHOICES, Contract


def read_prices(contract: Contract) -> dict[str, Any]:
    """Return the prices that a service pays, by name, with their date and region.

    `per_result` of a price is how much of it is paid for to store a result of up to 1 KiB.
    """
    found: dict[str, Any] = {}
    for choice in CHOICES:
        path = Path(__file__).parent / f"{getattr(contract, choice)}.json"
        if path.exists():
            read = json.loads(path.read_text(encoding="utf-8"))
            found = {**read, "prices": {**found.get("prices", {}), **read["prices"]}}
    return found
