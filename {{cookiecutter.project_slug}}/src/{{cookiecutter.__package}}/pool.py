"""The pool of task processes: its time limits, and what it shares with the main process.

Celery's own pool keeps a timer for each task until its limit would have passed, and kills a process at its hard limit
even if the task has returned and only its result is still being stored.
"""

from __future__ import annotations

import itertools
import mmap
import time
from enum import IntEnum
from typing import Any

import billiard.pool
from celery.concurrency import asynpool, prefork
from celery.worker import state

# Their published types lack what is replaced here.
BaseHandler: Any = billiard.pool.TimeoutHandler
BasePool: Any = asynpool.AsynPool

CHECK_LIMITS_EVERY_SECONDS = 0.25
"""How late a time limit may be enforced."""

_MARKS = 65_536
"""Far more than there are attempts at the same time, so that a mark is not reused while its attempt runs."""

_HURRY = _MARKS

_memory = mmap.mmap(-1, _MARKS + 1)
"""One byte for each attempt, and one for the worker: shared with the processes that are forked later."""

_next_mark = itertools.count()


class Phase(IntEnum):
    """How far a task process is with an attempt."""

    WAITING = 0
    """The task has not begun."""
    RUNNING = 1
    ENDED = 2
    """The task's own code has ended; what it ended with is not stored yet, or what comes next is not sent."""
    SETTLED = 3
    """All of that is done."""
    FAILED = 4
    """The task has failed for good, and that is stored."""


def new_mark() -> int:
    """Return the place where a task process notes how far it is with an attempt."""
    mark = next(_next_mark) % _MARKS
    set_phase(mark, Phase.WAITING)
    return mark


def phase_of(mark: int) -> Phase:
    """Return how far the task process is with an attempt."""
    return Phase(_memory[mark])


def set_phase(mark: int, phase: Phase) -> None:
    """Note how far this process is with an attempt."""
    _memory[mark] = phase


def hurry() -> None:
    """Tell the task processes that the worker is stopping, so that none waits for a result backend any longer."""
    _memory[_HURRY] = 1


def is_hurried() -> bool:
    """Return whether the worker is stopping."""
    return bool(_memory[_HURRY])


class Limits(BaseHandler):  # type: ignore[misc]
    """Enforces the time limits of tasks, which are for the tasks' own code."""

    def on_soft_timeout(self, job: Any) -> None:
        """Raise `SoftTimeLimitExceeded` in a task that still runs."""
        request = state.requests.get(job.correlation_id)
        if request is None or phase_of(request.mark) < Phase.ENDED:
            super().on_soft_timeout(job)

    def on_hard_timeout(self, job: Any) -> None:
        """Kill the process of a task that still runs; one that stores its result has until its message is visible."""
        request = state.requests.get(job.correlation_id)
        if request is not None and phase_of(request.mark) is Phase.ENDED and time.monotonic() < request.hold_until:
            return  # This is called again and again.
        super().on_hard_timeout(job)


class AsynPool(BasePool):  # type: ignore[misc]
    """Checks all time limits by one timer."""

    TimeoutHandler = Limits

    def _create_timelimit_handlers(self, hub: Any) -> None:
        hub.call_repeatedly(CHECK_LIMITS_EVERY_SECONDS, self._timeout_handler.handle_event)


class TaskPool(prefork.TaskPool):
    """The pool to name in `worker_pool`."""

    Pool = AsynPool
