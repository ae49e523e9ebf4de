"""The owner's own processes in `make dev`, such as a web application: one `name: command` per line of `Procfile`."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

LINE = re.compile(r"(?P<name>[A-Za-z0-9_-]+):\s*(?P<command>\S.*)")


class ProcfileError(ValueError):
    """A line of the Procfile cannot be run."""


def read(path: Path, taken: Collection[str]) -> dict[str, str]:
    """Return the commands of a Procfile by name; none if there is no such file.

    Args:
        path: the Procfile. Empty lines and lines that begin with `#` are comments.
        taken: names of other processes.

    Raises:
        ProcfileError: a line is not `name: command`, or its name is taken.
    """
    commands: dict[str, str] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not (found := LINE.fullmatch(line)):
            raise ProcfileError(f"{path.name}, line {number}: expected `name: command`, found {line!r}")
        name, command = found["name"], found["command"]
        if name in taken or name in commands:
            owner = "a worker of contract.json" if name in taken else "an earlier line"
            raise ProcfileError(f"{path.name}, line {number}: {name!r} is the name of {owner}; choose another name")
        commands[name] = command
    return commands
