"""A worker of several queues: the most urgent first, and the others as soon as it is empty."""

from __future__ import annotations

import time

import pytest

from library.support import BROKER, CONTRACT, eventually, notes, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(300)]

TASKS = 120

LEAST_URGENT = 95 if BROKER == "sqs" else 50
"""Of 100 starts, those of the urgent queue's tasks; RabbitMQ chooses what it delivers next."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Run the service with one worker for its first two queues; it is not started yet."""
    names = [queue["name"] for queue in CONTRACT["queues"]][:2]
    workers = [{"name": "shared", "queues": names, "concurrency": 2}]
    with running_service(tmp_path_factory.mktemp("logs"), workers=workers) as service:
        yield service


def fill(service, folder, queue, count, seconds=0.03):
    """Send tasks that note when they ran, each in a message group of its own."""
    with service.reached(), service.app.batching():
        for number in range(count):
            group = f"{queue.name}-{number}"
            service.probe("note_times", str(folder), number, seconds, group=group, queue=queue).delay()


def starts(folder):
    """Return the queues of the tasks in the order of their starts, with the times of these."""
    began = [(float(note.read_text().split()[0]), note.name.split(".")[0].rpartition("-")[0]) for note in notes(folder)]
    return sorted(began)


def test_worker_when_both_queues_are_full_then_starts_the_urgent_first(shared, tmp_path):
    urgent, other = shared.contract.queues[:2]
    for queue in (other, urgent):
        fill(shared, tmp_path, queue, TASKS)
    shared.start_worker("shared")
    assert eventually(lambda: len(notes(tmp_path)) == 2 * TASKS, 120), shared.log("shared")[-3000:]
    began = starts(tmp_path)
    assert [name for _, name in began[:100]].count(urgent.name) >= LEAST_URGENT, began
    assert eventually(lambda: shared.waiting(urgent) == shared.waiting(other) == 0)
    assert shared.dead(urgent) == shared.dead(other) == 0


def test_worker_when_the_urgent_queue_is_empty_then_the_other_moves(shared, tmp_path):
    """In half of the time that it would take if each task waited for the urgent queue."""
    _, other = shared.contract.queues[:2]
    fill(shared, tmp_path, other, TASKS)
    began = time.monotonic()
    assert eventually(lambda: len(notes(tmp_path)) == TASKS, 60), shared.log("shared")[-3000:]
    assert time.monotonic() - began < 30


def test_urgent_task_when_the_worker_is_busy_then_takes_the_next_slot(shared, tmp_path):
    urgent, other = shared.contract.queues[:2]
    fill(shared, tmp_path, other, 40, seconds=0.5)
    assert eventually(lambda: notes(tmp_path), 30)
    sent = time.monotonic()
    fill(shared, tmp_path, urgent, 1)
    assert eventually(lambda: len(notes(tmp_path)) == 41, 60), shared.log("shared")[-3000:]
    (started,) = (at for at, name in starts(tmp_path) if name == urgent.name)
    # Two slots become free in half a second; the rest is time to send and to receive.
    assert started - sent < 2.5
