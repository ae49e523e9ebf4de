"""How full the queues are; a module for each broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from rich.table import Table

from .. import options


class Depth(Protocol):
    """How full a queue is; each broker knows something else."""

    @property
    def is_well(self) -> bool:
        """Whether no operator need look."""


class Depths(Protocol):
    """What each broker's module has."""

    HELP: str
    """What the command has to say of the columns."""

    def depths(self, place: Any) -> Sequence[Depth]:
        """Return how full every queue of an environment is."""

    def drawn(self, found: Any, title: str) -> Table:
        """Return a table of the queues."""


def chosen(broker: str) -> Depths:
    """Return what knows the queues of a broker, named as in the contract."""
    return cast(Depths, options.load(__name__, broker))
