"""Draws the pictures of `docs/` whose numbers are the default answers': `make pictures`.

A test holds what was committed to what this draws now, so that no number is written by hand.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).parents[1]

UNITS = {"s": 1, "min": 60, "hours": 3_600, "days": 86_400}
WIDTH, LABELS, MARGIN, ROW = 860, 350, 20, 20
PLOT = WIDTH - LABELS - 2 * MARGIN
# A card of its own, so that it can be read on a light page and on a dark one.
CARD, EDGE, INK, FAINT = "#f6f8fa", "#d0d7de", "#1f2328", "#57606a"
COLOURS = {"task": "#0969da", "broker": "#8250df", "queue": "#1a7f37", "dead": "#cf222e", "stop": "#9a6700"}


@dataclass(frozen=True)
class Bar:
    """A time, from when to when on its scale."""

    says: str
    begins: float
    ends: float
    kind: str


@dataclass(frozen=True)
class Scale:
    """Bars on one scale of time, as long as its longest bar."""

    says: str
    unit: str
    step: int
    bars: tuple[Bar, ...]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return max(bar.ends for bar in self.bars)


def written(seconds: float) -> str:
    """Write a time as a whole number of the largest unit that fits."""
    name, size = next((name, size) for name, size in reversed(UNITS.items()) if seconds % size == 0 and seconds >= size)
    return f"{seconds / size:,.0f} {name}"


def bar(queue: dict[str, Any], field: str, kind: str, begins: float = 0) -> Bar:
    """Return the bar of a number of the contract."""
    value = queue[field]
    also = f", {written(value)}" if value >= UNITS["hours"] else ""
    return Bar(f"{field}: {value:,} s{also}", begins, begins + value, kind)


def pauses(queue: dict[str, Any]) -> list[Bar]:
    """Return the backoff of a task that fails at once, each time: bars in one row, with gaps to tell them apart."""
    lengths = [queue["retry_backoff_seconds"] * 2**n for n in range(queue["max_receive_count"] - 1)]
    ends = list(itertools.accumulate(lengths))
    says = f"backoff of a task that fails {queue['max_receive_count']} times: {ends[-1]:,} s"
    return [
        Bar("" if n else says, end - length, end - 0.06 * length, "queue")
        for n, (length, end) in enumerate(zip(lengths, ends, strict=True))
    ]


def stopping(contract: dict[str, Any]) -> list[Bar]:
    """Return how long a worker that is told to stop may take."""
    return [bar(contract, field, "stop") for field in ("soft_shutdown_seconds", "stop_timeout_seconds")]


def sqs_scales(contract: dict[str, Any]) -> list[Scale]:
    """Return what counts on SQS: a delivery, all deliveries, the life of a message."""
    queue = contract["queue_defaults"]
    countdown = queue["max_countdown_seconds"]
    hidden, count = queue["visibility_timeout_seconds"], queue["max_receive_count"]
    all_deliveries = Bar(f"{count} deliveries whose workers die: {count * hidden:,} s", 0, count * hidden, "broker")
    delivery = (
        bar(queue, "max_countdown_seconds", "queue"),
        bar(queue, "soft_limit_seconds", "task", countdown),
        bar(queue, "hard_limit_seconds", "task", countdown),
        bar(queue, "visibility_timeout_seconds", "broker"),
        *pauses(queue),
        *stopping(contract),
    )
    life = (
        bar(queue, "retention_seconds", "queue"),
        bar(contract, "dead_letter_retention_seconds", "dead"),
    )
    return [
        Scale("One delivery", "min", 1, delivery),
        Scale("All of them", "min", 5, (all_deliveries,)),
        Scale("A message's life", "days", 1, life),
    ]


def rabbitmq_scales(contract: dict[str, Any]) -> list[Scale]:
    """Return what counts on RabbitMQ, where a dead worker's messages come back at once."""
    queue = contract["queue_defaults"]
    delivery = (
        bar(queue, "soft_limit_seconds", "task"),
        bar(queue, "hard_limit_seconds", "task"),
        bar(queue, "visibility_timeout_seconds", "broker"),
        *pauses(queue),
        *stopping(contract),
    )
    life = (
        bar(queue, "retention_seconds", "queue"),
        bar(contract, "dead_letter_retention_seconds", "dead", queue["retention_seconds"]),
    )
    return [Scale("One delivery", "min", 1, delivery), Scale("A message's life", "days", 1, life)]


def text(x: float, y: float, says: str, size: int = 12, more: str = "") -> str:
    """Draw a line of text."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}"{more}>{escape(says)}</text>'


def draw_scale(scale: Scale, top: float) -> tuple[list[str], float]:
    """Draw a scale; return it and where it ends."""
    left, per_second = MARGIN + LABELS, PLOT / scale.seconds
    drawn = [text(MARGIN, top + 14, scale.says, 12, ' font-weight="bold"')]
    y = top
    for one in scale.bars:
        y += ROW if one.says else 0
        if one.says:
            drawn.append(text(left - 10, y + 14, one.says, 11, ' text-anchor="end"'))
        x, width = left + one.begins * per_second, max(1, (one.ends - one.begins) * per_second)
        fill = COLOURS[one.kind]
        drawn.append(f'<rect x="{x:.1f}" y="{y + 4:g}" width="{width:.1f}" height="12" fill="{fill}"/>')
    y += ROW + 6
    drawn.append(f'<path d="M{left} {y:g}H{left + PLOT}" stroke="{FAINT}"/>')
    unit = UNITS[scale.unit]
    for tick in range(0, int(scale.seconds / unit) + 1, scale.step):
        x = left + tick * unit * per_second
        drawn.append(f'<path d="M{x:.1f} {y:g}v4" stroke="{FAINT}"/>')
        drawn.append(text(round(x, 1), y + 15, f"{tick}", 10, f' text-anchor="middle" fill="{FAINT}"'))
    drawn.append(text(left - 10, y + 15, scale.unit, 10, f' text-anchor="end" fill="{FAINT}"'))
    return drawn, y + 20


def draw(title: str, groups: Sequence[tuple[str, Sequence[Scale]]]) -> str:
    """Draw groups of scales, each scale with the place that it has on the next one, which is longer."""
    drawn: list[str] = []
    y: float = MARGIN
    for name, scales in groups:
        drawn.append(text(MARGIN, y + 14, name, 15, ' font-weight="bold"'))
        y += 26
        for shorter, longer in zip(scales, [*scales[1:], None], strict=True):
            scale, y = draw_scale(shorter, y)
            drawn += scale
            if longer:
                left, place = MARGIN + LABELS, PLOT * shorter.seconds / longer.seconds
                corners = f"M{left} {y:g}H{left + PLOT}L{left + place:.1f} {y + 28:g}H{left}z"
                drawn.append(f'<path d="{corners}" fill="{EDGE}"/>')
                y += 28
        y += 20
    height = y - 20 + MARGIN
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
            f'font-family="Verdana, DejaVu Sans, sans-serif" fill="{INK}">',
            f"<title>{escape(title)}</title>",
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="6" fill="{CARD}" stroke="{EDGE}"/>',
            *drawn,
            "</svg>\n",
        )
    )


def timeouts(sqs: dict[str, Any], rabbitmq: dict[str, Any]) -> str:
    """Draw the times of two contracts to scale."""
    groups = (("SQS", sqs_scales(sqs)), ("RabbitMQ", rabbitmq_scales(rabbitmq)))
    return draw("The timeouts of the default answers, to scale", groups)


def default_contract(folder: Path, broker: str) -> dict[str, Any]:
    """Bake the default answers with a broker, and return the contract."""
    output, answer = str(folder / broker), {"broker": broker}
    project = cookiecutter(str(TEMPLATE), no_input=True, default_config=True, extra_context=answer, output_dir=output)
    contract: dict[str, Any] = json.loads((Path(project) / "contract.json").read_text(encoding="utf-8"))
    return contract


def main() -> None:
    """Draw them all."""
    with tempfile.TemporaryDirectory() as name:
        contracts = [default_contract(Path(name), broker) for broker in ("sqs-standard", "rabbitmq")]
    (TEMPLATE / "docs" / "timeouts.svg").write_text(timeouts(*contracts), encoding="utf-8")


if __name__ == "__main__":
    main()
