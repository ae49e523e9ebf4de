"""Checks whether a worker or the beat is alive, by the age of its liveness file; see liveness.py.

The check makes no request and does not import Celery, so containers may run it often.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from .contract import BEAT, Contract, UnknownNameError

STALE_AFTER_SECONDS = 15
"""Maximum age of the liveness file; a worker may miss some beats while it waits for AWS."""


class NotAliveError(RuntimeError):
    """A worker, or the beat, is not running, or is stuck."""


def liveness_file(contract: Contract, name: str) -> Path:
    """Return the liveness file of a worker or the beat, in `LIVENESS_DIRECTORY` or the temporary directory."""
    directory = os.environ.get("LIVENESS_DIRECTORY") or tempfile.gettempdir()
    return Path(directory) / f"{contract.service}-{name}.alive"


def check(contract: Contract, name: str) -> float:
    """Return the age of a liveness file in seconds.

    Args:
        contract: the contract of the service.
        name: name of a worker, or `BEAT`.

    Raises:
        UnknownNameError: the contract has no such worker; the message lists all, and the beat.
        NotAliveError: the file is missing or older than `STALE_AFTER_SECONDS`.
    """
    try:
        about = "the beat" if name == BEAT else f"worker {contract.worker(name).name}"
    except UnknownNameError as error:
        if contract.schedules:
            raise UnknownNameError(f"{error.args[0]}; or {BEAT}, which sends the tasks of schedules") from None
        raise
    path = liveness_file(contract, name)
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        raise NotAliveError(f"{about} has not run on this machine: {path} is missing") from None
    if age > STALE_AFTER_SECONDS:
        raise NotAliveError(f"{about} was last alive {age:.0f} s ago: {path}")
    return age
