"""How fast, and with how many requests, the service sends and works, against plain Celery.

The alternatives run in turn with the service; medians are compared. services.py describes them, and the stand-in for
SQS that all run on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from pathlib import Path

from benchmarks.services import GUIDES, IN_ORDER, PLAIN, Load, Service, bake, idling, in_turn
from tools.figures import Figure

TURNS = 3
IDLE_SECONDS = 65

# The slow ones get fewer tasks: a rate needs no more.
BUSY = Load(tasks=1000, seconds=0.01, groups=1000, concurrency=4)
FEW = Load(tasks=40, seconds=0.01, groups=40, concurrency=4)
FIFO = Load(tasks=200, seconds=0.2, groups=20, concurrency=8)
FIFO_ALONE = Load(tasks=40, seconds=0.2, groups=20, concurrency=1)


def measure() -> list[Figure]:
    """Return how fast sending and working are, and how many requests they take."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        ours = Service("service", bake(folder, "sqs-standard", seconds_per_task=0.01))
        ours_fifo = Service("service", bake(folder, "sqs-fifo", seconds_per_task=0.2, concurrency=8))
        # These two run beside all others, and ask for so little that they disturb none.
        idle, plain_idle = (stack.enter_context(idling(service, folder)) for service in (ours, PLAIN))
        began = time.monotonic()
        ours_singly = dataclasses.replace(ours, batches=False)
        loads = [(ours, BUSY), (ours_singly, BUSY), (PLAIN, BUSY), (GUIDES, FEW)]
        best, singly, stock, copied = in_turn(loads, folder, TURNS)
        fifo, alone = in_turn([(ours_fifo, FIFO), (IN_ORDER, FIFO_ALONE)], folder, TURNS)
        time.sleep(max(0, began + IDLE_SECONDS - time.monotonic()))
        plain, ordered, pace, cost = PLAIN.label, IN_ORDER.label, "a second", "a task"
        return [
            Figure("tasks of 10 ms", best.rate, pace, "≥ 10 times", GUIDES.label, copied.rate),
            Figure("tasks of 10 ms", best.rate, pace, "≥ 1 times", plain, stock.rate),
            Figure("FIFO tasks of 0.2 s, 20 groups", fifo.rate, pace, "≥ 5 times", ordered, alone.rate),
            Figure("all requests, tasks of 10 ms", best.requests, cost, "≤ 0.32", plain, stock.requests),
            Figure("all requests, FIFO tasks", fifo.requests, cost, "≤ 2.3", ordered, alone.requests),
            Figure("requests to send in a batch", best.send_requests, cost, "≤ 0.11", plain, stock.send_requests),
            Figure(
                "requests to send in a batch, FIFO", fifo.send_requests, cost, "≤ 0.11", ordered, alone.send_requests
            ),
            Figure("requests to send one by one", singly.send_requests, cost, "≤ 1", plain, stock.send_requests),
            Figure("sending 1,000 in a batch", best.send_rate, pace, "≥ 5 times", plain, stock.send_rate),
            Figure("sending 1,000 one by one", singly.send_rate, pace, "≥ 0.8 times", plain, stock.send_rate),
            Figure("requests of an idle worker", idle(), "an hour", "≤ 180", plain, plain_idle()),
        ]
