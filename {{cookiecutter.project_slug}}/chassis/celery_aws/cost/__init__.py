"""Prices of AWS with their sources, one JSON file per option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..contract import CHOICES, Contract


def read_prices(contract: Contract) -> dict[str, Any]:
    """Return the prices of a service's options, by name, with their date and region.

    `per_result` is the number of units that storing a result of up to 1 KiB costs.
    """
    found: dict[str, Any] = {}
    for choice in CHOICES:
        path = Path(__file__).parent / f"{getattr(contract, choice)}.json"
        if path.exists():
            read = json.loads(path.read_text(encoding="utf-8"))
            found = {**read, "prices": {**found.get("prices", {}), **read["prices"]}}
    return found
