"""Reports that a worker is alive: the broker responds, or all running tasks are within their time limits.

A running process proves little: it also runs if the broker never responds. A worker that is alive
touches a file for health checks, and notifies systemd if systemd started it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.worker import state

from .contract import HAND_OVER_SECONDS, Contract, Worker
from .health import liveness_file

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2


class Liveness(bootsteps.StartStopStep):
    """Reports every `BEAT_SECONDS`, from the worker's event loop.

    https://docs.celeryq.dev/en/stable/userguide/extending.html
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, worker_consumer: Any) -> None:
        """Start when the worker starts to consume."""
        app = worker_consumer.app
        beats = Beats(worker_consumer, app.contract, app.contract.worker_of(app.queues_consumed[0]))
        worker_consumer.timer.call_repeatedly(BEAT_SECONDS, beats.beat)


class Reporter:
    """Reports that a worker, or the beat, is alive."""

    def __init__(self, contract: Contract, name: str) -> None:
        self.contract = contract
        self.name = name
        self._warned = False

    def report(self) -> None:
        """Touch the liveness file, and notify systemd."""
        path = liveness_file(self.contract, self.name)
        try:
            path.touch()
        except OSError as error:  # A full disk, for example, must not end a worker.
            self._warn(path, error)
        notify_systemd("READY=1\nWATCHDOG=1")

    def _warn(self, path: Path, error: OSError) -> None:
        """Log, once, that health checks will fail although this process is alive."""
        if not self._warned:
            self._warned = True
            logger.error(
                "liveness file cannot be written, so health checks will fail although this process is alive: %s. Give "
                "its user write permission, or set LIVENESS_DIRECTORY to a writable folder (%s)",
                error,
                path,
            )


class Beats:
    """Checks whether a worker is alive, and reports it."""

    def __init__(self, worker_consumer: Any, contract: Contract, worker: Worker) -> None:
        self.consumer = worker_consumer
        self.began = time.monotonic()
        self._reporter = Reporter(contract, worker.name)

    def beat(self) -> None:
        """Report that the worker is alive, if it is."""
        if self.is_alive():
            self._reporter.report()

    def is_alive(self) -> bool:
        """Return whether the broker responds or, if no response is due, whether no task is overdue."""
        channel: Any = getattr(self.consumer.task_consumer, "channel", None)
        now = time.monotonic()
        if channel is not None and channel.awaits_answers:
            last = max(channel.last_answer or 0, self.began)
            return bool(now - last < channel.answer_due_seconds)
        return all(now < overdue_at(request) for request in list(state.active_requests))


def overdue_at(request: Any) -> float:
    """Return the monotonic time at which a task is overdue.

    Its code ends at the hard limit; storing its result may take as long as its message is invisible.
    """
    limit_ends = (request.accepted_at or time.monotonic()) + request.time_limits[0]
    return float(max(limit_ends, request.hold_until) + HAND_OVER_SECONDS)


def notify_systemd(message: str) -> None:
    """Notify systemd, if it started this process with a notification socket.

    https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
