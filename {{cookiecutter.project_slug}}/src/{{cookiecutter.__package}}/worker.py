"""One command that starts a worker with the right flags for a queue."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .contract import Contract, read


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
        # Processes: gevent and eventlet poll the queues of SQS one after the other.
        "--pool=prefork",
        f"--concurrency={queue.concurrency}",
        f"--soft-time-limit={queue.soft_limit_seconds}",
        f"--time-limit={queue.hard_limit_seconds}",
        # Both talk through broadcast, which SQS does not have.
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
    contract = read()
    contract.queue(queue_name)  # A mistyped name is told before a missing environment.
    # Only now: whoever just asks for the command's help needs neither.
    from celery.bin.celery import celery

    from . import settings

    # Where it found credentials and endpoint, once per client and process.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    arguments = worker_arguments(contract, queue_name, settings.read().log_level)
    # Not `app.worker_main`, which ends with status 0 whatever the worker ended with.
    celery.main(args=[f"--app={contract.package}.app:app", *arguments, *extra])
