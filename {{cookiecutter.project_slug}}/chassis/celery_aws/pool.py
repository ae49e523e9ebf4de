"""The pool of task processes: time limits, and the phases that it shares with the main process.

Celery's pool keeps a timer for each task until its limit has passed, and kills a process at the hard
limit even if the task has returned and only its result is still being stored.
"""

from __future__ import annotations

import collections
import gc
import mmap
import select
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

ACCEPT_WITHIN_SECONDS = 5
"""Longest wait of a stopping worker until task processes have accepted the attempts that were sent to them."""

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
    """Checks all time limits with one timer; a stopping worker knows of every attempt that has started."""

    TimeoutHandler = TimeLimits

    def flush(self) -> None:
        """Discard the attempts that no task process has accepted.

        Celery also discards those that a task process has received, and runs, if the main process has
        not yet read that it accepted them. A stopping worker would not interrupt such an attempt, nor
        read its outcome.
        """
        if is_shutting_down():
            self._read_accepted()
        super().flush()

    def _read_accepted(self) -> None:
        end = time.monotonic() + ACCEPT_WITHIN_SECONDS
        while time.monotonic() < end:
            sent = [job for job in self._cache.values() if job._write_to is not None and not job._accepted]
            processes = {job._write_to for job in sent if job._write_to.exitcode is None}
            if not processes:
                return
            for job in sent:
                if (writer := job._writer()) in self._active_writers:  # Larger than the pipe.
                    self._flush_writer(job._write_to, writer)
            for descriptor in select.select([process.outqR_fd for process in processes], [], [], 0.1)[0]:
                self.handle_result_event(descriptor)

    def _create_timelimit_handlers(self, hub: Any) -> None:
        hub.call_repeatedly(CHECK_LIMITS_EVERY_SECONDS, self._timeout_handler.handle_event)


class TaskPool(prefork.TaskPool):
    """The pool class for Celery's `worker_pool`."""

    Pool = AsynPool

    def on_start(self) -> None:
        """Start the task processes, with everything that was imported exempt from garbage collection.

        Collections are shorter, and processes go on sharing this memory.
        https://docs.python.org/3/library/gc.html#gc.freeze
        """
        gc.collect()
        gc.freeze()
        super().on_start()
