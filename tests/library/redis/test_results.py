"""Results in Redis: what is stored twice counts once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import states

from library.support import eventually, notes

pytestmark = pytest.mark.end_to_end


def test_chord_when_the_answer_to_its_last_part_is_lost_then_runs_its_body(quiet, tmp_path, monkeypatch):
    """The first request has claimed the chord; who repeats it must not take that claim for another's."""
    quiet.start_worker()
    with quiet.reached():
        backend = quiet.app.backend
        body = quiet.probe("follow", str(tmp_path))
        backend.set_chord_size("group-1", 1)
        script = type(backend)._chord_part_return_script.__get__(backend)
        claimed = []

        def twice(**options):
            claimed.append(script(**options)[3])
            claimed.append(script(**options)[3])
            return script(**options)

        monkeypatch.setitem(backend.__dict__, "_chord_part_return_script", twice)
        request = SimpleNamespace(id="1", group="group-1", group_index=0, chord=dict(body))
        backend.on_chord_part_return(request, states.SUCCESS, "done")
    assert claimed == [1, 1]
    assert eventually(lambda: notes(tmp_path)), quiet.log()
