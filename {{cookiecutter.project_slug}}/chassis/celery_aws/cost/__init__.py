"""Prices of AWS with their sources, and the items of a bill.

The prices are in one JSON file per option, and one for what every environment has.

`resources.json` says of each resource type of the Terraform module what it costs: prices, nothing, or that it is left
out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contract import CHOICES, Contract

FOLDER = Path(__file__).parent


def read_prices(contract: Contract) -> dict[str, Any]:
    """Return the prices of a service, by name, with their region and the date of the oldest of them.

    `per_result` is the number of units that storing a result of up to 1 KiB costs. `dollars_by_type` has the instance
    types of which a page was found that states the price.
    """
    found: dict[str, Any] = {}
    for name in ("stack", *(getattr(contract, choice) for choice in CHOICES)):
        path = FOLDER / f"{name}.json"
        if path.exists():
            read = json.loads(path.read_text(encoding="utf-8"))
            date = min(read["date"], found.get("date", read["date"]))
            found = {**read, "date": date, "prices": {**found.get("prices", {}), **read["prices"]}}
    return found


@dataclass(frozen=True)
class Line:
    """One item of a month's bill."""

    what: str
    formula: str
    count: float
    """Units per month."""
    price: str
    """Name of the unit's price."""
    dollars_each: float | None
    """None if the price is not known."""

    @property
    def dollars(self) -> float | None:
        """Cost per month; None if the price is not known. A free tier is not taken off."""
        return None if self.dollars_each is None else self.count * self.dollars_each


def dollars_each(price: Mapping[str, Any], instance_type: str = "") -> float | None:
    """Return the dollars of one unit; None if the price of an instance type is not known."""
    if "dollars_per_million" in price:
        return float(price["dollars_per_million"]) / 1_000_000
    found = price["dollars"] if "dollars" in price else price["dollars_by_type"].get(instance_type)
    return None if found is None else float(found)


def read_resources() -> dict[str, Any]:
    """Return what each resource type costs: `priced` with the names of its prices, `left_out` by reason, and `free`.

    `only` has the options of which one must be chosen for a reason to apply.
    """
    resources: dict[str, Any] = json.loads((FOLDER / "resources.json").read_text(encoding="utf-8"))
    return resources
