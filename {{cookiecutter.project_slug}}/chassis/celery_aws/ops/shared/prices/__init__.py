"""Prices of AWS, with their sources: the files beside this one, each of an option of the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_prices() -> dict[str, Any]:
    """Return the prices, by name, with their date and region."""
    found: dict[str, Any] = {}
    for path in sorted(Path(__file__).parent.glob("*.json")):
        read = json.loads(path.read_text(encoding="utf-8"))
        found = {**read, "prices": {**found.get("prices", {}), **read["prices"]}}
    return found
