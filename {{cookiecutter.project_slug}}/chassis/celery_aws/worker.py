"""Starts the worker of a queue with the right options, and limits its shutdown time."""

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

    A worker serves one queue, so that urgent tasks never wait for slow ones, and each queue has its
    own limits, concurrency and scaling.

    Raises:
        KeyError: the contract has no such queue.
    """
    queue = contract.queue(queue_name)
    return [
        "--quiet",  # The banner does not describe this transport.
        "worker",
        f"--queues={contract.celery_name(queue)}",
        f"--hostname={queue.name}@%h",
        f"--concurrency={queue.concurrency}",
        # A prefetched message is invisible to idle workers, and its visibility timeout has begun.
        f"--prefetch-multiplier={queue.prefetch_multiplier}",
        # Workers do not need to know each other.
        "--without-gossip",
        "--without-mingle",
        f"--loglevel={log_level}",
    ]


def start(queue_name: str, extra: Sequence[str] = ()) -> None:
    """Run the worker of one queue until it is stopped, and exit with its status.

    Args:
        queue_name: short name of the queue.
        extra: further arguments of `celery worker`.

    Raises:
        KeyError: the contract has no such queue.
    """
    contract = service.contract()
    contract.queue(queue_name)  # Report a mistyped name before missing environment variables.
    # Imported late, so that the command's help starts fast.
    from celery import signals
    from celery.bin.celery import celery

    arguments = worker_arguments(contract, queue_name, service.app().settings.log_level)

    def limit_shutdown(how: str, **rest: Any) -> None:
        if how == "Warm":
            end_after(contract.soft_shutdown_seconds)

    signals.worker_shutting_down.connect(limit_shutdown)
    # `app.worker_main` always exits with status 0.
    celery.main(args=[f"--app={contract.package}", *arguments, *extra])


def end_after(seconds: float) -> None:
    """Turn a warm shutdown into a cold one after some seconds.

    Celery's soft shutdown always sleeps for its whole timeout, even if no task is running. A warm
    shutdown ends with the last task but has no timeout. SIGQUIT adds one: it starts a cold shutdown.
    https://docs.celeryq.dev/en/stable/userguide/workers.html#stopping-the-worker
    """
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGQUIT))
    timer.daemon = True
    timer.start()
