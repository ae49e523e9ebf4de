"""Three hundred tasks on the worst of days: random faults, and workers that are killed."""

from __future__ import annotations

import random
import signal
import time

import pytest

from library.aws_faults import proxy
from library.support import CONTRACT, eventually, notes, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(300)]

TASKS = 300
TASK_SECONDS = 0.4
"""Long enough that a worker is killed in the middle of some."""
SLOTS = 6
KILLS = 6


def test_every_task_is_done_and_none_is_dead_lettered(tmp_path_factory, tmp_path):
    per_worker = max(1, SLOTS // len(CONTRACT["workers"]))
    with (
        # Each kill costs every message that the worker held a delivery, hence the many.
        running_service(tmp_path_factory.mktemp("logs"), 4, max_receive_count=50, concurrency=per_worker) as service,
        proxy(service.environment["AWS_ENDPOINT_URL"]) as storm,
    ):
        queues = service.contract.queues
        folders = [tmp_path / str(number) for number in range(TASKS)]
        with service.reached(), service.app.batching():
            for number, folder in enumerate(folders):
                folder.mkdir()
                queue = queues[number % len(queues)]
                service.probe("overrun", str(folder), TASK_SECONDS, group=f"g{number % 30}", queue=queue).delay()
        storm.storm = 0.15
        names = [worker.name for worker in service.contract.workers]
        for name in names:
            service.start_worker(name, AWS_ENDPOINT_URL=storm.url)
        for _ in range(KILLS):
            time.sleep(3)
            victim = random.choice(names)
            service.workers[victim].send_signal(signal.SIGKILL)
            service.workers[victim].wait()
            service.start_worker(victim, AWS_ENDPOINT_URL=storm.url)

        def undone():
            return [folder.name for folder in folders if not any(note.suffix == ".ended" for note in notes(folder))]

        assert eventually(lambda: not undone(), 120), (undone(), service.log())
        assert storm.faulty > 20
        storm.storm = 0
        assert eventually(lambda: sum(map(service.waiting, queues)) == 0, 60), service.log()
        assert sum(map(service.dead, queues)) == 0
