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
    """Measure."""
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
        plain, asked = PLAIN.label, "requests a task"
        return [
            Figure("tasks of 10 ms", best.rate, "a second", "≥ 10 times", GUIDES.label, copied.rate),
            Figure("the same", best.rate, "a second", "≥ 1 times", plain, stock.rate),
            Figure("all requests for a task", best.requests, asked, "≤ 0.32", plain, stock.requests),
            Figure("FIFO tasks of 0.2 s, 20 groups", fifo.rate, "a second", "≥ 5 times", IN_ORDER.label, alone.rate),
            Figure("all requests for a FIFO task", fifo.requests, asked, "≤ 2.5", IN_ORDER.label, alone.requests),
            Figure("sending in a batch", best.send_rate, "a second", "≥ 5 times", plain, stock.send_rate),
            Figure("requests to send in a batch", best.send_requests, asked, "≤ 0.11", plain, stock.send_requests),
            Figure(
                "requests to send to FIFO", fifo.send_requests, asked, "≤ 0.11", IN_ORDER.label, alone.send_requests
            ),
            Figure("sending one by one", singly.send_rate, "a second", "≥ 0.8 times", plain, stock.send_rate),
            Figure("requests to send one", singly.send_requests, asked, "≤ 1", plain, stock.send_requests),
            Figure("an idle worker", idle(), "requests an hour", "≤ 180", plain, plain_idle()),
        ]
