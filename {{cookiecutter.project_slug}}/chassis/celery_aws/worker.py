"""Starts a worker with the right flags for a queue, and lets it end in time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

from . import service
from .contract import Contract


def worker_arguments(contract: Contract, queue_name: str, log_level: str) -> list[str]:
    """Return Celery's command line for the worker of one queue.

    One worker serves one queue, so that urgent work never waits behind slow work, and limits,
    concurrency and scaling are each queue's own.

    Raises:
        KeyError: there is no such queue.
    """
    queue = contract.queue(queue_name)
    return [
        "--quiet",  # No banner: half of what it says is not about this transport.
        "worker",
        f"--queues={contract.celery_name(queue)}",
        f"--hostname={queue.name}@%h",
        f"--concurrency={queue.concurrency}",
        # What waits inside a worker is no other's to do, and its time there is limited.
        f"--prefetch-multiplier={queue.prefetch_multiplier}",
        # Workers need not know of each other; both would ask all of them at every start.
        "--without-gossip",
        "--without-mingle",
        f"--loglevel={log_level}",
    ]


def start(queue_name: str, extra: Sequence[str] = ()) -> None:
    """Run the worker of one queue until it is told to stop; then exit, with 0 if that was in order.

    Args:
        queue_name: short name of the queue.
        extra: further arguments of `celery worker`.

    Raises:
        KeyError: there is no such queue.
    """
    contract = service.contract()
    contract.queue(queue_name)  # A mistyped name is told before a missing environment.
    # Only now: whoever just asks for the command's help needs neither.
    from celery import signals
    from celery.bin.celery import celery

    arguments = worker_arguments(contract, queue_name, service.app().settings.log_level)

    def limit_patience(how: str, **rest: Any) -> None:
        if how == "Warm":
            end_after(contract.soft_shutdown_seconds)

    signals.worker_shutting_down.connect(limit_patience)
    # Not `app.worker_main`, which ends with status 0 whatever the worker ended with.
    celery.main(args=[f"--app={contract.package}", *arguments, *extra])


def end_after(seconds: float) -> None:
    """Let the tasks of a worker that was told to stop run on for some time, then cancel them.

    Celery's own soft shutdown sleeps its whole time through and hears nothing meanwhile, even if
    every task has ended. A warm shutdown ends with the last task but never gives up waiting. So
    this begins with the one, and ends with the cold shutdown that SIGQUIT asks for.
    https://docs.celeryq.dev/en/stable/userguide/workers.html#stopping-the-worker
    """
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGQUIT))
    timer.daemon = True
    timer.start()
