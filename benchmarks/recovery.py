"""How soon a task runs again whose worker was killed, with a visibility heartbeat and without.

Two workers run, one of them takes a task of 20 s, and after 10 s all processes of that one are killed by SIGKILL. The
time is from then until the other begins the task anew. Both contracts let tasks take 30 s. Without a heartbeat the
visibility timeout must cover that, so it is 90 s, the shortest that the rules allow; plain Celery on such a queue waits
as long. With one it is 6 s, and would be 6 s for tasks of an hour.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.services import Load, Service, bake, send, sqs, wait, working, written
from tools.figures import Figure

TURNS = 3
TASK_SECONDS = 20
ONE = Load(tasks=1, seconds=TASK_SECONDS, groups=1, concurrency=4)
LIMITS = {"soft_limit_seconds": 25, "hard_limit_seconds": 30, "max_countdown_seconds": 0}
WITH = {**LIMITS, "visibility_timeout_seconds": 6, "heartbeat_seconds": 2}
WITHOUT = {**LIMITS, "visibility_timeout_seconds": 90}


def recovery_seconds(numbers: dict[str, int]) -> float:
    """Kill a worker, and return how long its task then waited.

    Raises:
        RuntimeError: the task ran twice while its worker lived.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        service = Service("service", bake(folder, "sqs-standard", **numbers))
        naps = folder / "naps"
        naps.touch()
        timeout = numbers["visibility_timeout_seconds"]
        with sqs(timeout) as url:
            environment = service.environment(url, naps)
            with (
                working(service, ONE.concurrency, environment, "one") as one,
                working(service, ONE.concurrency, environment, "other") as other,
            ):
                send(service, "long_nap", ONE, environment)
                wait(lambda: bool(written(naps)), one.log)
                time.sleep(TASK_SECONDS / 2)
                [(_, holder)] = written(naps)
                next(worker for worker in (one, other) if worker.process.pid == holder).kill()
                killed = time.monotonic()
                wait(lambda: len(written(naps)) > 1, other.log, 2 * timeout)
        began, again = written(naps)[1]
        if again == holder:
            raise RuntimeError("the task ran twice while its worker lived")
        return float(began - killed)


def measure() -> list[Figure]:
    """Return how long a killed worker's task waits; the run without a heartbeat goes on beside those with one."""
    with ThreadPoolExecutor() as threads:
        without = threads.submit(recovery_seconds, WITHOUT)
        beating = statistics.median(recovery_seconds(WITH) for _ in range(TURNS))
        label = "wait of a killed worker's task, with heartbeat"
        return [Figure(label, beating, "s", "≤ 7", "no heartbeat", without.result())]
