"""Pausing of queues, with one module per broker: workers take no messages of a paused queue, whenever they start."""

from __future__ import annotations

import getpass
import math
import socket
import time
from dataclasses import dataclass
from typing import Any, Protocol, cast

from .. import options
from ..contract import Contract, Queue
from ..durations import age


@dataclass(frozen=True)
class Pause:
    """That a queue is paused."""

    by: str
    """Who paused it, as user@host; empty if that is not known."""
    at: float
    """When, as Unix time; 0 if that is not known."""

    @classmethod
    def now(cls) -> Pause:
        """Return a pause that begins now, by whoever runs this process."""
        return cls(f"{getpass.getuser()}@{socket.gethostname()}", time.time())

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Pause:
        """Return a pause from what was stored of it, whatever that is."""
        try:
            at = float(stored.get("at", 0))
        except (TypeError, ValueError, OverflowError):
            at = 0.0
        return cls(str(stored.get("by", "")), at if math.isfinite(at) else 0.0)


def described(pause: Pause) -> str:
    """Return who paused a queue, and how long ago."""
    by = f" by {pause.by}" if pause.by else ""
    return f"paused{by}" + (f" {age(time.time() - pause.at)} ago" if pause.at else "")


def is_available(contract: Contract) -> bool:
    """Return whether queues of a contract can be paused."""
    return contract.broker == "rabbitmq" or contract.remote_control


class Pausing(Protocol):
    """The interface of a broker's module."""

    def pause(self, env: Any, queue: Queue) -> str:
        """Pause a queue; return what that means from now on, for the operator."""

    def resume(self, env: Any, queue: Queue) -> str:
        """Resume a queue; return what that means from now on, for the operator."""


def chosen(broker: str) -> Pausing:
    """Return the module of a broker, named as in the contract."""
    return cast(Pausing, options.load(__name__, broker))
