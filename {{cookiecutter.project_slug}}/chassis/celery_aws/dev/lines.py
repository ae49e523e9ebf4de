"""Turns what a process of `make dev` prints into a line for people.

Workers and the beat log JSON, because they write into a pipe. Everything else is shown as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import cycle
from typing import Any

from rich.text import Text

from ..terminal import printable

# Colours only, nothing bold or dim: NO_COLOR then leaves plain text.
PALE = "bright_black"
NAME_COLOURS = ("cyan", "magenta", "blue", "bright_cyan", "bright_magenta", "bright_blue")
STATE_COLOURS = {
    "succeeded": "green",
    **dict.fromkeys(("WARNING", "retrying", "retry_requested", "ignored", "revoked", "interrupted"), "yellow"),
    **dict.fromkeys(("ERROR", "CRITICAL", "dead_lettered", "rejected"), "red"),
}
STATE_WIDTH = len("retry_requested")
LEAST_TASK_WIDTH, MOST_TASK_WIDTH = 24, 32
"""Names of tasks up to this length are aligned."""
UUID = re.compile(r"([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f-]+")
"""Of such an id, the first part is shown, which `dlq --id` takes; others, such as those of schedules, as a whole."""
INDENT = " " * len("HH:MM:SS  ")
ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class Lines:
    """Formats lines, aligned by the names of processes and tasks.

    Args:
        names: names of all processes.
        short_name: returns the short name of a task.
    """

    def __init__(self, names: Iterable[str], short_name: Callable[[str], str]) -> None:
        self._colours = dict(zip(names, cycle(NAME_COLOURS), strict=False))
        self._name_width = max(map(len, self._colours))
        self._task_width = LEAST_TASK_WIDTH
        self._short_name = short_name

    def format(self, name: str, line: str, at: datetime) -> Text:
        """Return a line of a process; a traceback and further lines of a message are below it.

        Args:
            name: name of the process.
            line: what it printed; untrusted, because tasks log what was sent to them.
            at: when it did.
        """
        text = Text.assemble((f"{at:%H:%M:%S}  ", PALE), (name.ljust(self._name_width), self._colours[name]), "  ")
        fields = logged(line)
        if fields is None:
            return text.append(clean(line))
        state = printable(fields.get("outcome") or fields["level"])
        message, *below = str(fields["message"]).splitlines() or [""]
        text.append(f"{state:{STATE_WIDTH}}  ", STATE_COLOURS.get(state))
        if "task" in fields:
            text.append(f"{self._task(fields['task'])}  ")
        text.append(clean(message))
        if "task_id" in fields:
            task_id = printable(fields["task_id"])
            uuid = UUID.fullmatch(task_id)
            text.append(f"  {uuid[1] if uuid else task_id}", PALE)
        below += str(fields.get("exception") or "").splitlines()
        return text.append("".join(f"\n{INDENT}{clean(line)}" for line in below))

    def _task(self, name: object) -> str:
        """Return the short name of a task, as wide as the widest so far."""
        short = printable(self._short_name(str(name)))
        self._task_width = min(max(self._task_width, len(short)), MOST_TASK_WIDTH)
        return short.ljust(self._task_width)


def logged(line: str) -> dict[str, Any] | None:
    """Return the fields of a line that logs.py wrote as JSON; None if it is another line."""
    if not line.startswith("{"):
        return None
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return fields if fields.keys() >= {"level", "message"} else None


def clean(line: str) -> str:
    """Return a line without colours and control characters; tabs are spaces."""
    return printable(ESCAPE_SEQUENCE.sub("", line).expandtabs())
