"""The pool of task processes: its time limits, and what it shares with the main process.

Celery's own pool keeps a timer for each task until its limit would have passed, and kills a process at its hard limit
even if the task has returned and only its result is still being stored.
"""

from __future__ import annotations

import collections
import mmap
import time
import weakref
from enum import IntEnum
from typing import Any

import billiard.pool
from celery.concurrency import asynpool, prefork
from celery.worker import state

from .contract import HAND_OVER_SECONDS

# Their published types lack what is replaced here.
BaseHandler: Any = billiard.pool.TimeoutHandler
BasePool: Any = asynpool.AsynPool

CHECK_LIMITS_EVERY_SECONDS = 0.25
"""How late a time limit may be enforced."""

SETTLE_WITHIN_SECONDS = HAND_OVER_SECONDS / 2
"""What is left for deleting or dead-lettering a message when an errback that never ends is killed."""

_MARKS = 65_536
"""More than a worker may hold messages."""

_SHUTDOWN = _MARKS

_memory = mmap.mmap(-1, _MARKS + 1)
"""One byte for each attempt, and one for the worker: shared with the processes that are forked later."""

_free_marks = collections.deque(range(_MARKS))
"""Taken from the left and put back on the right, so that a mark rests for long before it is used again."""


class Phase(IntEnum):
    """How far a task process is with an attempt."""

    WAITING = 0
    """The task has not begun."""
    RUNNING = 1
    ENDED = 2
    """The task's code has ended; its outcome is not stored yet, or what comes next is not sent."""
    SUCCEEDED = 3
    """All of that is done, as it is from here on."""
    IGNORED = 4
    RETRY_REQUESTED = 5
    REVOKED = 6
    FAILED = 7
    """The task has failed for good, and that is stored."""


def new_mark(owner: object) -> int:
    """Return the place where a task process notes how far it is with an attempt; it is free again after its owner."""
    mark = _free_marks.popleft()
    weakref.finalize(owner, _free_marks.append, mark).atexit = False
    set_phase(mark, Phase.WAITING)
    return mark


def phase_of(mark: int) -> Phase:
    """Return how far the task process is with an attempt."""
    return Phase(_memory[mark])


def set_phase(mark: int, phase: Phase) -> None:
    """Note how far this process is with an attempt."""
    _memory[mark] = phase


def announce_shutdown() -> None:
    """Tell the task processes that the worker is stopping, so that none waits for a result backend any longer."""
    _memory[_SHUTDOWN] = 1


def is_shutting_down() -> bool:
    """Return whether the worker is stopping."""
    return bool(_memory[_SHUTDOWN])


class TimeLimits(BaseHandler):  # type: ignore[misc]
    """Enforces the time limits of tasks, which are for the tasks' own code."""

    def on_soft_timeout(self, job: Any) -> None:
        """Raise `SoftTimeLimitExceeded` in a task that still runs."""
        request = state.requests.get(job.correlation_id)
        if request is None or phase_of(request.mark) < Phase.ENDED:
            super().on_soft_timeout(job)

    def on_hard_timeout(self, job: Any) -> None:
        """Kill the process of a task that still runs; what follows it has until its message is visible.

        Errbacks, which may hang, have as long as the task had. This is called again and again.
        """
        request = state.requests.get(job.correlation_id)
        if request is not None and (phase := phase_of(request.mark)) >= Phase.ENDED:
            now = time.monotonic()
            if phase > Phase.ENDED and request.kill_at is None:
                request.kill_at = min(now + job._timeout, request.hold_until - SETTLE_WITHIN_SECONDS)
            if now < (request.hold_until if request.kill_at is None else request.kill_at):
                return
        super().on_hard_timeout(job)


class AsynPool(BasePool):  # type: ignore[misc]
    """Checks all time limits by one timer."""

    TimeoutHandler = TimeLimits

    def _create_timelimit_handlers(self, hub: Any) -> None:
        hub.call_repeatedly(CHECK_LIMITS_EVERY_SECONDS, self._timeout_handler.handle_event)


class TaskPool(prefork.TaskPool):
    """The pool to name in `worker_pool`."""

    Pool = AsynPool
