"""The worker's main process neither dies nor stands still for what a task or a result backend does."""

from __future__ import annotations

import itertools
import os
import signal
import time

import pytest

from library.support import CONTRACT, HAS_RESULTS, eventually, notes, outages, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture
def service(tmp_path_factory):
    """A service without a worker, with a queue of one slot and tasks of any length."""
    with running_service(
        tmp_path_factory.mktemp("logs"), concurrency=1, soft_limit_seconds=4, hard_limit_seconds=6
    ) as running:
        yield running


def gaps(folder):
    """Return how long the only slot was free between two tasks, in seconds, shortest first."""
    times = sorted(tuple(map(float, note.read_text().split())) for note in notes(folder))
    return sorted(after[0] - before[1] for before, after in itertools.pairwise(times))


def test_slot_when_freed_then_is_filled_at_once(service, tmp_path):
    with service.reached(), service.app.batching():
        for number in range(12):
            service.probe("note_times", str(tmp_path), number, 0.3, ignore_result=True).delay()
    service.start_worker()
    assert eventually(lambda: len(notes(tmp_path)) == 12, 60), service.log()
    # A machine that is busy makes some gaps long, and no gap short.
    assert gaps(tmp_path)[2] < 0.1


def test_task_process_when_it_collects_garbage_then_passes_over_what_was_imported(service, tmp_path):
    service.start_worker()
    service.send("note_frozen", str(tmp_path))
    assert eventually(lambda: notes(tmp_path), 60), service.log()
    assert int(notes(tmp_path)[0].name.partition("-")[2]) > 10_000


def test_timers_when_a_worker_polls_and_works_then_do_not_pile_up(service, tmp_path):
    counted = tmp_path / "counted"
    service.start_worker(COUNT_TIMERS=str(counted))
    assert service.ready(), service.log()
    (tmp_path / "done").mkdir()
    with service.reached(), service.app.batching():
        for _ in range(150):
            service.probe("leave_trace", str(tmp_path / "done"), ignore_result=True).delay()
    assert eventually(lambda: len(notes(tmp_path / "done")) == 150, 90), service.log()
    assert int(eventually(counted.read_text)) < 40  # It may just be written.


def test_task_process_when_it_starts_slowly_then_is_not_killed_for_it(service, tmp_path):
    service.start_worker(START_SECONDS="6", extra=["--max-tasks-per-child=1"])
    assert service.ready(), service.log()
    for _ in range(2):
        service.send("leave_trace", str(tmp_path))
    assert eventually(lambda: len(notes(tmp_path)) == 2, 60), service.log()
    assert "Timed out waiting for UP message" not in service.log()
    assert "SIGKILL" not in service.log()


@pytest.mark.skipif(not HAS_RESULTS, reason="there is no result backend")
def test_worker_when_a_process_dies_while_the_result_backend_hangs_then_goes_on(tmp_path_factory, tmp_path):
    with (
        running_service(tmp_path_factory.mktemp("logs"), concurrency=3) as service,
        outages.results_behind(service.environment) as faults,
    ):
        service.start_worker(**faults.variables)
        assert service.ready(), service.log()
        (tmp_path / "long").mkdir()
        (tmp_path / "others").mkdir()
        service.send("stay", str(tmp_path / "long"), 60, group="long")
        assert eventually(lambda: notes(tmp_path / "long")), service.log()
        with faults.outage("hang"):
            os.kill(int(notes(tmp_path / "long")[0].suffix[1:]), signal.SIGKILL)
            assert eventually(lambda: "task process ended" in service.log(), 30), service.log()
            began = time.monotonic()
            for number in range(6):
                service.send("leave_trace", str(tmp_path / "others"), group=f"g{number}", ignore_result=True)
            assert eventually(lambda: len(notes(tmp_path / "others")) == 6, 20), service.log()
            assert time.monotonic() - began < 10


def test_worker_of_celerys_own_command_when_a_task_overruns_then_has_the_limits_of_its_queue(service, tmp_path):
    """Limits belong to the task and its queue, and not to how the worker was started."""
    service.start_worker(command=["celery", f"--app={CONTRACT['package']}", "worker", "--loglevel=INFO"])
    assert service.ready(), service.log()
    service.send("overrun", str(tmp_path), 60, True)
    hard = service.queue.hard_limit_seconds
    assert eventually(lambda: len([n for n in notes(tmp_path) if n.suffix == ".began"]) == 2, hard + 15), service.log()
    first, *_, last = (int(note.name.split(".")[0]) for note in notes(tmp_path) if note.suffix == ".began")
    assert hard - 1 <= (last - first) / 1e9 <= hard + 8


def test_no_bodies_when_workers_stop_then_are_written_to_files(service, tmp_path):
    folder = tmp_path / "tmp"
    folder.mkdir()
    worker = service.start_worker(TMPDIR=str(folder))
    assert service.ready(), service.log()
    (tmp_path / "long").mkdir()
    service.send("overrun", str(tmp_path / "long"), 60)
    assert eventually(lambda: notes(tmp_path / "long")), service.log()
    worker.send_signal(signal.SIGQUIT)
    worker.wait(30)
    assert [path.name for path in folder.iterdir() if path.suffix != ".alive"] == []
