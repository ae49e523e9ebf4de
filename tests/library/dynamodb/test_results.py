"""Results in DynamoDB: what is stored twice counts once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import states

pytestmark = pytest.mark.end_to_end


def test_chord_when_a_task_is_counted_twice_then_counts_once(quiet, monkeypatch):
    with quiet.reached():
        backend = quiet.app.backend
        counted = []
        real = backend._add_part
        monkeypatch.setattr(backend, "_add_part", lambda key: counted.append(real(key)) or counted[-1])
        steps = [quiet.app.AsyncResult(task_id) for task_id in ("a", "b", "c")]
        quiet.app.GroupResult("g", steps).save(backend=backend)
        for task_id in ("a", "a", "b"):
            request = SimpleNamespace(id=task_id, group="g", chord={"chord_size": 3})
            backend.on_chord_part_return(request, states.SUCCESS, None)
    assert counted == [1, 1, 2]
