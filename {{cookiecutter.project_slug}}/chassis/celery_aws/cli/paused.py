"""How tables show that a queue is paused."""

from __future__ import annotations

from rich.text import Text

from ..pausing import Pause, described
from ..terminal import plain, printable


def named(queue: str, pause: Pause | None) -> Text:
    """Return the name of a queue, and below it who paused the queue, and when."""
    return Text.assemble(plain(queue), (f"\n{printable(described(pause))}", "yellow")) if pause else plain(queue)
