"""FIFO with several tasks at a time: in order within a group, groups side by side."""

from __future__ import annotations

import itertools

import pytest

from tests.test_end_to_end import QUEUES, app, eventually, sender

__all__ = ["sender"]  # a fixture

pytestmark = pytest.mark.end_to_end


def test_groups_run_in_parallel_and_each_in_order(service, sender, tmp_path):
    queue, groups, tasks = QUEUES[0], "abcd", 5
    assert queue.concurrency > 1
    for number in range(tasks):
        for group in groups:
            sender.send_task(
                "tests.probes.note_times",
                (str(tmp_path), number, 0.1),
                queue=sender.amqp.queues[app.contract.celery_name(queue)],
                MessageGroupId=group,
            )
    assert eventually(lambda: len(list(tmp_path.iterdir())) == len(groups) * tasks), service.log(queue.name)
    times = {
        group: [tuple(map(float, (tmp_path / f"{group}.{n}").read_text().split())) for n in range(tasks)]
        for group in groups
    }
    for group, spans in times.items():
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(spans)), (group, spans)
    overlaps = [
        (one, other)
        for one in groups
        for other in groups
        if one < other and any(a < d and c < b for a, b in times[one] for c, d in times[other])
    ]
    assert overlaps
