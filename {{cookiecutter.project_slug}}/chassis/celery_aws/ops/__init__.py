"""The on-call commands: the module `ops/dlq.py` holds the command `dlq`, as `command`, and so on.

So an option brings its command by bringing a file. What the commands share is in `shared/`.
"""

from __future__ import annotations

import importlib
import pkgutil

import click


def names() -> list[str]:
    """Return the names of the commands."""
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg]


def load(name: str) -> click.Command:
    """Return a command; only now is it imported, so that the others start fast."""
    command: click.Command = importlib.import_module(f"{__name__}.{name}").command
    return command
