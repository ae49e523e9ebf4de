"""Asks whether a worker is alive, by the age of the file that it touches as long as work goes on; see liveness.py.

That costs no request and starts no Celery, so containers and systemd may ask often.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from .contract import Contract, Queue

STALE_AFTER_SECONDS = 15
"""A worker whose file is older is not alive; it may miss some beats while it waits for AWS."""


class NotAliveError(RuntimeError):
    """A worker does no work and waits for none."""


def liveness_file(contract: Contract, queue: Queue) -> Path:
    """Return the file that the worker of a queue touches: in `LIVENESS_DIRECTORY`, or among temporary files."""
    directory = os.environ.get("LIVENESS_DIRECTORY") or tempfile.gettempdir()
    return Path(directory) / f"{contract.service}-{queue.name}.alive"


def check(contract: Contract, queue: Queue) -> float:
    """Return how many seconds ago the worker of a queue was alive.

    Raises:
        NotAliveError: that is too long ago, or was never.
    """
    path = liveness_file(contract, queue)
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        raise NotAliveError(f"no worker of {queue.name} has been alive on this machine: {path} is missing") from None
    if age > STALE_AFTER_SECONDS:
        raise NotAliveError(f"the worker of {queue.name} was alive {age:.0f} s ago, and not since: {path}")
    return age
