"""Shows in docs/benchmarks.md what benchmarks have measured: `make bench` writes the table.

It follows from `docs/figures.json`, which holds what each benchmark has measured last. A test holds these together, so
that nobody writes a figure by hand.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CELLS = ("", "measured", "against", "ratio", "target")
TABLE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)

PAGE = "docs/benchmarks.md"


@dataclass(frozen=True)
class Figure:
    """What was measured of one thing, here and of an alternative in the same run."""

    label: str
    measured: float
    unit: str
    target: str
    """`≤ 0.32`, in the figure's unit, or `≥ 10 times` the alternative."""
    against: str = ""
    alternative: float | None = None
    """What was measured of the alternative."""

    def __post_init__(self) -> None:
        for name in ("measured", "alternative"):
            if (value := getattr(self, name)) is not None:  # Rounded here, as what is kept must say the same.
                object.__setattr__(self, name, float(f"{value:.4g}"))

    @property
    def ratio(self) -> float | None:
        """How many times the alternative it is."""
        return None if self.alternative is None else self.measured / self.alternative

    @property
    def is_met(self) -> bool:
        """Whether it is what it should be."""
        how, limit, *times = self.target.split()
        value = self.ratio if times else self.measured
        if value is None:
            raise ValueError(f"{self.label} should be a multiple of nothing")
        return value >= float(limit) if how == "≥" else value <= float(limit)

    @property
    def cells(self) -> tuple[str, ...]:
        """What a table says of it: see `CELLS`."""
        against = "" if self.alternative is None else f"{number(self.alternative)}, {self.against}"
        ratio = "" if self.ratio is None else f"{number(self.ratio)} times"
        target = self.target if self.target.endswith("times") else f"{self.target} {self.unit}"
        target += "" if self.is_met else ", missed"
        return self.label, f"{number(self.measured)} {self.unit}", against, ratio, target


def number(value: float) -> str:
    """Write a number with two digits that count, and all of those before its point."""
    digits = 1 - math.floor(math.log10(abs(float(f"{value:.2g}")))) if value else 0
    return f"{value:,.{max(0, digits)}f}"


def merged(kept: Mapping[str, Any], measured: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    """Put new figures of benchmarks in the place of old ones; all old ones go if another machine measured them."""
    machine = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "processors": os.cpu_count(),
    }
    same = all(kept.get(name) == value for name, value in machine.items())
    new = {
        benchmark: [{**asdict(figure), "met": figure.is_met} for figure in figures]
        for benchmark, figures in measured.items()
    }
    return {**machine, "figures": {**(kept["figures"] if same else {}), **new}}


def read(kept: Mapping[str, Any]) -> list[Figure]:
    """Return the figures of `docs/figures.json`."""
    said = (dict(figure) for figures in kept["figures"].values() for figure in figures)
    return [Figure(**{name: value for name, value in figure.items() if name != "met"}) for figure in said]


def page(kept: Mapping[str, Any], text: str) -> str:
    """Return a page with the table of figures in its place."""
    where = f"Python {kept['python']}, {kept['processors']} processors"
    rows = [CELLS, ("---",) * len(CELLS), *(figure.cells for figure in read(kept))]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return TABLE.sub(lambda _: f"\nMeasured with {where}:\n\n{table}\n", text)


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts by their paths in a folder."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def keep(folder: Path, measured: Mapping[str, Sequence[Figure]]) -> None:
    """Keep what benchmarks have measured, and show it on the page of benchmarks."""
    path = folder / "docs" / "figures.json"
    kept = merged(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}, measured)
    text = json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
    write(folder, {"docs/figures.json": text, PAGE: page(kept, (folder / PAGE).read_text(encoding="utf-8"))})
