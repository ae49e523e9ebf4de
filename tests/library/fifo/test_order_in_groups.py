"""FIFO with several tasks at a time: in order within a group, groups side by side."""

from __future__ import annotations

import itertools

import pytest

from library.support import eventually, notes, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(300)]

GROUPS = [f"g{number}" for number in range(20)]
TASKS = 25


@pytest.mark.parametrize("workers", [1, 2])
def test_groups_run_side_by_side_and_each_in_order_also_with_failures(tmp_path_factory, tmp_path, workers):
    with running_service(tmp_path_factory.mktemp("logs"), 30, concurrency=8, max_receive_count=5) as service:
        with service.reached(), service.app.batching():
            for number in range(TASKS):
                for group in GROUPS:
                    failures = 1 if (number + len(group)) % 12 == 5 else 0
                    service.probe("note_times", str(tmp_path), number, 0.02, failures, group=group).delay()
        for worker in range(workers):
            service.start_worker(label=f"worker-{worker}")
        runs = len(GROUPS) * (TASKS + sum((number + 2) % 12 == 5 for number in range(TASKS)))
        assert eventually(lambda: service.waiting() == 0, 150), service.log("worker-0")[-3000:]
        assert len(notes(tmp_path)) >= runs - len(GROUPS)
        spans: dict[str, list[tuple[float, float, int]]] = {group: [] for group in GROUPS}
        for note in notes(tmp_path):
            group, number, _ = note.name.split(".")
            began, ended = map(float, note.read_text().split())
            spans[group].append((began, ended, int(number)))
        for group, ran in spans.items():
            ran.sort()
            numbers = [number for _, _, number in ran]
            assert list(dict.fromkeys(numbers)) == list(range(TASKS)), (group, numbers)
            assert numbers == sorted(numbers), (group, numbers)  # One that failed goes first again.
            assert all(ended <= began for (_, ended, _), (began, _, _) in itertools.pairwise(ran)), (group, ran)
        everything = sorted(span for ran in spans.values() for span in ran)
        assert any(later[0] < earlier[1] for earlier, later in itertools.pairwise(everything))
        assert service.dead() == 0
