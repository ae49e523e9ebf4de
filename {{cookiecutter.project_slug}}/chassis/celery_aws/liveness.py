"""Tells that a worker is alive: the broker answers it, or every slot is busy and within its time limit.

A process that runs proves little: a worker whose broker never answers runs as well. So the worker touches a file as
long as work goes on, and tells systemd where that started it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from typing import Any

from celery import bootsteps
from celery.worker import state

from .contract import HAND_OVER_SECONDS, Contract, Queue
from .health import liveness_file

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2


class Liveness(bootsteps.StartStopStep):
    """Tells it every few seconds, from the worker's event loop.

    https://docs.celeryq.dev/en/stable/userguide/extending.html
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, worker_consumer: Any) -> None:
        """Begin when the worker has begun to consume."""
        app = worker_consumer.app
        served = [app.queue_served(queue.name) for queue in worker_consumer.task_consumer.queues]
        beats = Beats(worker_consumer, app.contract, served)
        worker_consumer.timer.call_repeatedly(BEAT_SECONDS, beats.beat)


class Beats:
    """Knows whether a worker is alive, and says so."""

    def __init__(self, worker_consumer: Any, contract: Contract, queues: list[Queue]) -> None:
        self.consumer = worker_consumer
        self.contract = contract
        self.queues = queues
        self.began = time.monotonic()
        self._warned = False

    def beat(self) -> None:
        """Touch the files, if work goes on."""
        if not self.works():
            return
        for queue in self.queues:
            path = liveness_file(self.contract, queue)
            try:
                path.touch()
            except OSError as error:  # A full disk, say, must not end a worker; its file grows old.
                self._warn(path, error)
        notify_systemd("READY=1\nWATCHDOG=1")

    def _warn(self, path: Any, error: OSError) -> None:
        """Say once that health checks will fail although the worker works."""
        if not self._warned:
            self._warned = True
            logger.error(
                "liveness file cannot be written, so health checks will fail though this worker works: %s. Let the "
                "worker's user write to that folder, or set LIVENESS_DIRECTORY to one that it may write to (%s)",
                error,
                path,
            )

    def works(self) -> bool:
        """Return whether the broker answers, or it need not be asked and no task overruns its time."""
        channel: Any = getattr(self.consumer.task_consumer, "channel", None)
        now = time.monotonic()
        if channel is not None and channel.awaits_answers:
            last = max(channel.last_answer or 0, self.began)
            return bool(now - last < channel.answer_due_seconds)
        return all(now < overdue_at(request) for request in list(state.active_requests))


def overdue_at(request: Any) -> float:
    """Return when a task should long have ended, in seconds of the monotonic clock.

    Its own code ends at its hard limit; storing its result may take as long as its message is invisible.
    """
    limit_ends = (request.accepted_at or time.monotonic()) + request.time_limits[0]
    return float(max(limit_ends, request.hold_until) + HAND_OVER_SECONDS)


def notify_systemd(message: str) -> None:
    """Tell systemd, if it started this process and wants to know.

    https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
