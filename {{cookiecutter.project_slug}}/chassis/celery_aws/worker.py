"""Starts a worker with the right options, and limits its shutdown time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

from . import service
from .contract import Contract


def worker_arguments(contract: Contract, name: str, log_level: str) -> list[str]:
    """Return the arguments of `celery worker` for a worker.

    Raises:
        UnknownNameError: the contract has no such worker.
    """
    worker = contract.worker(name)
    return [
        f"--queues={','.join(contract.celery_name(queue) for queue in contract.queues_of(worker))}",
        f"--hostname={worker.name}@%h",
        f"--concurrency={worker.concurrency}",
        # A prefetched message is invisible to idle workers, and its visibility timeout has begun.
        f"--prefetch-multiplier={contract.prefetch_multiplier(worker)}",
        # Replaces a process before a memory leak matters, between two tasks.
        f"--max-tasks-per-child={worker.tasks_per_child}",
        # Workers do not need to know each other.
        "--without-gossip",
        "--without-mingle",
        f"--loglevel={log_level}",
    ]


def start(name: str, extra: Sequence[str] = ()) -> None:
    """Run a worker until it is stopped, and exit with its status.

    Args:
        name: name of the worker in the contract.
        extra: further arguments of `celery worker`.

    Raises:
        UnknownNameError: the contract has no such worker.
    """
    contract = service.contract()
    contract.worker(name)  # Report a mistyped name before missing environment variables.
    # Imported late, so that the command's help starts fast; and without `celery.bin.celery`, which imports every
    # command of Celery and of plugins such as Flower: half of a worker's start-up time.
    from celery import signals
    from celery.bin import worker as command
    from celery.bin.base import CLIContext

    app = service.app()
    arguments = worker_arguments(contract, name, app.settings.log_level)

    def limit_shutdown(how: str, **rest: Any) -> None:
        if how == "Warm":
            end_after(contract.soft_shutdown_seconds)

    signals.worker_shutting_down.connect(limit_shutdown)
    command.worker.params.extend(option for kind in ("worker", "preload") for option in app.user_options[kind])
    # The banner of a worker that is not quiet does not describe this transport.
    context = CLIContext(app=app, no_color="NO_COLOR" in os.environ, workdir=None, quiet=True)
    # `app.worker_main` always exits with status 0.
    command.worker.main([*arguments, *extra], prog_name="celery worker", obj=context)


def end_after(seconds: float) -> None:
    """Turn a warm shutdown into a cold one after some seconds.

    Celery's soft shutdown always sleeps for its whole timeout, even if no task is running. A warm
    shutdown ends with the last task but has no timeout. SIGQUIT adds one: it starts a cold shutdown.
    https://docs.celeryq.dev/en/stable/userguide/workers.html#stopping-the-worker
    """
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGQUIT))
    timer.daemon = True
    timer.start()
