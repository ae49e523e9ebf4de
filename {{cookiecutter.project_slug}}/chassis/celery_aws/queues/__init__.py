"""The depth of the queues, with one module per broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from .. import options
from ..cloudwatch import Series
from ..contract import Queue
from ..pausing import Pause


class Depth(Protocol):
    """The depth of a queue; the other fields depend on the broker."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Which of the queue and its dead-letter queue do not exist, by their names at the broker."""

    @property
    def paused(self) -> Pause | None:
        """Who paused the queue, and when; None if it is not paused."""

    @property
    def is_well(self) -> bool:
        """Whether the queue needs no attention."""


class Depths(Protocol):
    """The interface of a broker's module."""

    def depths(self, env: Any) -> Sequence[Depth]:
        """Return the depth of every queue of an environment."""

    def purge(self, env: Any, queue: Queue) -> None:
        """Delete all messages that wait in a queue."""

    def history(self, env: Any) -> dict[str, Series]:
        """Return how many messages waited in the last hours, by queue; empty if nothing has recorded it."""


def chosen(broker: str) -> Depths:
    """Return the module of a broker, named as in the contract."""
    return cast(Depths, options.load(__name__, broker))
