"""How soon a worker has done its first task, and what memory it takes, against plain Celery with as many processes.

Tasks wait for it when it starts. The time is from the start of its process; the memory is that of all its processes
when the tasks are done.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.services import PLAIN, Load, Service, bake, in_turn
from tools.figures import Figure

TURNS = 5
SOME = Load(tasks=100, seconds=0.01, groups=100, concurrency=4)


def measure() -> list[Figure]:
    """Return how long a worker takes to its first task, and its memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        service = Service("service", bake(folder, "sqs-standard"))
        ours, plain = in_turn([(service, SOME), (PLAIN, SOME)], folder, TURNS)
        first, against = ours.first_seconds, plain.first_seconds
        return [
            Figure("start of a worker to its first task", first, "s", "≤ 1.5 times", PLAIN.label, against),
            Figure("memory of a worker", ours.megabytes, "MB", "≤ 1.5 times", PLAIN.label, plain.megabytes),
        ]
