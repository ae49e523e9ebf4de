"""Tells that a worker is alive: the broker answers it, or every slot is busy and within its time limit.

A process that runs proves little: a worker whose broker never answers runs as well. So the worker touches a file as
long as work goes on, and tells systemd where that started it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

from celery import bootsteps
from celery.worker import state

from .contract import HAND_OVER_SECONDS, Contract, Queue
from .health import liveness_file

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

    def beat(self) -> None:
        """Touch the files, if work goes on."""
        if not self.works():
            return
        for queue in self.queues:
            # A full disk must not end a worker; its file grows old.
            with contextlib.suppress(OSError):
                liveness_file(self.contract, queue).touch()
        notify_systemd("READY=1\nWATCHDOG=1")

    def works(self) -> bool:
        """Return whether the broker answers, or it need not be asked and no task overruns its hard limit."""
        channel: Any = getattr(self.consumer.task_consumer, "channel", None)
        if channel is not None and channel.awaits_answers:
            last = max(channel.last_answer or 0, self.began)
            return bool(time.monotonic() - last < channel.answer_due_seconds)
        longest = max(queue.hard_limit_seconds for queue in self.queues) + HAND_OVER_SECONDS
        return all(time.time() - request.time_start < longest for request in list(state.active_requests))


def notify_systemd(message: str) -> None:
    """Tell systemd, if it started this process and wants to know.

    https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
