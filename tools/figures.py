"""Shows in README what benchmarks have measured: `make bench` writes the table of speed, and a chart.

They follow from `docs/figures.json`, which holds what each benchmark has measured last. A test holds these together, so
that nobody writes a figure by hand.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from tools.badges import write

CELLS = ("", "measured", "against", "ratio", "target")
TABLE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)

LETTERS = 'font-family="Verdana, DejaVu Sans, sans-serif" font-size="11"'
LABELS, BARS, NAMES, ROW, TOP = 280, 240, 310, 22, 48
"""Widths of the chart's three columns, the height of a row, and of what stands above the rows."""
# The colours of text, faint text, lines, what is better and what is worse, on a ground of their own.
STYLE = """\
<style>
.ground{fill:#fff}.text{fill:#24292f}.faint{fill:#57606a}.line{stroke:#d0d7de}.same{stroke:#57606a}
.better{fill:#2da44e}.worse{fill:#bf8700}
@media (prefers-color-scheme:dark){
.ground{fill:#161b22}.text{fill:#e6edf3}.faint{fill:#9da7b3}.line{stroke:#30363d}.same{stroke:#9da7b3}
.better{fill:#2ea043}.worse{fill:#d29922}
}
</style>
"""


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
    def better(self) -> float | None:
        """How many times better than the alternative it is."""
        if self.ratio is None:
            return None
        return self.ratio if self.target.startswith("≥") else 1 / self.ratio

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


def files(kept: Mapping[str, Any], readme: str) -> dict[str, str]:
    """Return chart and README by their paths."""
    figures = read(kept)
    where = f"Python {kept['python']}, {kept['processors']} processors"
    rows = [CELLS, ("---",) * len(CELLS), *(figure.cells for figure in figures)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    picture = "![how many times better than the alternative each figure is](docs/figures.svg)"
    return {
        "docs/figures.svg": chart(figures, where),
        "README.md": TABLE.sub(lambda _: f"\nMeasured with {where}:\n\n{table}\n{picture}\n\n", readme),
    }


def chart(figures: Sequence[Figure], where: str) -> str:
    """Draw how many times better than its alternative each figure is: bars on a logarithmic scale."""
    shown = [(figure, figure.better) for figure in figures if figure.better]
    values = [better for _, better in shown]
    low, high = min([0.5, *(value / 1.5 for value in values)]), max([2, *(value * 2 for value in values)])

    def place(value: float) -> float:
        return LABELS + BARS * math.log(value / low) / math.log(high / low)

    width, height = LABELS + BARS + NAMES, TOP + ROW * len(shown) + 10
    lines = [
        _scale(10**power, place, height) for power in range(math.ceil(math.log10(low)), math.ceil(math.log10(high)))
    ]
    rows = [_row(figure, better, place, TOP + ROW * index) for index, (figure, better) in enumerate(shown)]
    title = f"How many times better than the alternative; {where}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{title}">\n{STYLE}<rect class="ground" width="{width}" height="{height}" rx="6"/>\n'
        f'<g {LETTERS}>\n<text class="text" x="10" y="18" font-weight="bold">{title}</text>\n'
        f"{''.join(lines)}{''.join(rows)}</g>\n</svg>\n"
    )


def _scale(value: float, place: Callable[[float], float], height: int) -> str:
    """Draw a line of the scale; that at 1 is the alternative."""
    x, kind = round(place(value), 1), "same" if value == 1 else "line"
    said = "as good" if value == 1 else f"{value:g} times"
    return (
        f'<path class="{kind}" d="M{x} {TOP - 4}V{height - 8}"/>\n'
        f'<text class="faint" x="{x}" y="{TOP - 8}" text-anchor="middle">{said}</text>\n'
    )


def _row(figure: Figure, better: float, place: Callable[[float], float], y: int) -> str:
    """Draw a figure's label, bar, and what it is compared with."""
    begin, end = sorted((place(1), place(better)))
    kind, times = ("better", better) if better >= 1 else ("worse", 1 / better)
    how = "as good as" if number(times) == "1.0" else f"{number(times)} times {kind} than"
    return (
        f'<text class="text" x="{LABELS - 10}" y="{y + 14}" text-anchor="end">{escape(figure.label)}</text>\n'
        f'<rect class="{kind}" x="{begin:.1f}" y="{y + 3}" width="{max(1, end - begin):.1f}" height="{ROW - 8}"/>\n'
        f'<text class="faint" x="{LABELS + BARS + 6}" y="{y + 14}">{how} {escape(figure.against)}</text>\n'
    )


def keep(folder: Path, measured: Mapping[str, Sequence[Figure]]) -> None:
    """Keep what benchmarks have measured, and show it in README."""
    path = folder / "docs" / "figures.json"
    kept = merged(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}, measured)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    text = json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
    write(folder, {"docs/figures.json": text, **files(kept, readme)})
