"""Cells of the tables of queues."""

from __future__ import annotations

from rich.text import Text

from ..pausing import Pause, described
from ..terminal import plain, printable


def named(queue: str, pause: Pause | None) -> Text:
    """Return the name of a queue, and below it who paused the queue, and when."""
    return Text.assemble(plain(queue), (f"\n{printable(described(pause))}", "yellow")) if pause else plain(queue)


def count(number: int | None, *, is_wrong: bool = False, missing: str = "-") -> str:
    """Return a count, in red if it is wrong; what it is if the queue does not exist."""
    if number is None:
        return f"[red]{missing}[/]"
    return f"[red]{number:,}[/]" if is_wrong else f"{number:,}"
