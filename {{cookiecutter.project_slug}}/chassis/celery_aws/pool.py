"""The pool of task processes: time limits, and the phases that it shares with the main process.

Celery's pool keeps a timer for each task until its limit has passed, and kills a process at the hard
limit even if the task has returned and only its result is still being stored.
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

# The published types lack what is overridden here.
BaseHandler: Any = billiard.pool.TimeoutHandler
BasePool: Any = asynpool.AsynPool

CHECK_LIMITS_EVERY_SECONDS = 0.25
"""Interval between checks of time limits; a limit is enforced this much late at most."""

SETTLE_WITHIN_SECONDS = HAND_OVER_SECONDS / 2
"""Time to delete or dead-letter a message after a hanging errback was killed."""

_MARKS = 65_536
"""Number of marks; more than a worker can hold messages."""

_SHUTDOWN = _MARKS

_memory = mmap.mmap(-1, _MARKS + 1)
"""One byte for each attempt and one for the worker, shared with the task processes, which are forked."""

_free_marks = collections.deque(range(_MARKS))
"""First in, first out, so that a mark is reused as late as possible."""


class Phase(IntEnum):
    """The phase of an attempt, as set by its task process."""

    WAITING = 0
    """The task has not started."""
    RUNNING = 1
    ENDED = 2
    """The task's code has ended; its outcome is not stored, or its callbacks are not sent."""
    SUCCEEDED = 3
    """The outcome is stored and callbacks are sent; this is true of all following phases."""
    IGNORED = 4
    RETRY_REQUESTED = 5
    REVOKED = 6
    FAILED = 7
    """The task has failed finally."""


def new_mark(owner: object) -> int:
    """Return the index of a free byte for the phase of an attempt; it is freed with its owner."""
    mark = _free_marks.popleft()
    weakref.finalize(owner, _free_marks.append, mark).atexit = False
    set_phase(mark, Phase.WAITING)
    return mark


def phase_of(mark: int) -> Phase:
    """Return the phase of an attempt."""
    return Phase(_memory[mark])


def set_phase(mark: int, phase: Phase) -> None:
    """Set the phase of an attempt."""
    _memory[mark] = phase


def announce_shutdown() -> None:
    """Tell the task processes that the worker is stopping; they stop waiting for a result backend."""
    _memory[_SHUTDOWN] = 1


def is_shutting_down() -> bool:
    """Return whether the worker is stopping."""
    return bool(_memory[_SHUTDOWN])


class TimeLimits(BaseHandler):  # type: ignore[misc]
    """Enforces the time limits of tasks, which apply to the tasks' code only."""

    def on_soft_timeout(self, job: Any) -> None:
        """Raise `SoftTimeLimitExceeded` in a task whose code is running."""
        request = state.requests.get(job.correlation_id)
        if request is None or phase_of(request.mark) < Phase.ENDED:
            super().on_soft_timeout(job)

    def on_hard_timeout(self, job: Any) -> None:
        """Kill the process of a task whose code is running; called repeatedly after the hard limit.

        Storing the outcome may take until the message becomes visible. Errbacks, which may hang, may
        take as long as the task.
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
    """Checks all time limits with one timer."""

    TimeoutHandler = TimeLimits

    def _create_timelimit_handlers(self, hub: Any) -> None:
        hub.call_repeatedly(CHECK_LIMITS_EVERY_SECONDS, self._timeout_handler.handle_event)


class TaskPool(prefork.TaskPool):
    """The pool class for Celery's `worker_pool`."""

    Pool = AsynPool
