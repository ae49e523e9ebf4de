"""Checks whether a worker is alive, by the age of its liveness file; see liveness.py.

The check makes no request and does not import Celery, so containers may run it often.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from .contract import Contract, Queue

STALE_AFTER_SECONDS = 15
"""Maximum age of the liveness file; a worker may miss some beats while it waits for AWS."""


class NotAliveError(RuntimeError):
    """A worker is not running, or is stuck."""


def liveness_file(contract: Contract, queue: Queue) -> Path:
    """Return the liveness file of a queue's worker, in `LIVENESS_DIRECTORY` or the temporary directory."""
    directory = os.environ.get("LIVENESS_DIRECTORY") or tempfile.gettempdir()
    return Path(directory) / f"{contract.service}-{queue.name}.alive"


def check(contract: Contract, queue: Queue) -> float:
    """Return the age of a worker's liveness file in seconds.

    Raises:
        NotAliveError: the file is missing or older than `STALE_AFTER_SECONDS`.
    """
    path = liveness_file(contract, queue)
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        raise NotAliveError(f"no worker of queue {queue.name} has run on this machine: {path} is missing") from None
    if age > STALE_AFTER_SECONDS:
        raise NotAliveError(f"the worker of queue {queue.name} was last alive {age:.0f} s ago: {path}")
    return age
