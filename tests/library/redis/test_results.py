"""Results in Redis: what is stored twice counts once."""

from __future__ import annotations

import os
from types import SimpleNamespace
from unittest import mock

import pytest
from celery import group, states

from celery_aws.app import build
from celery_aws.settings import Settings
from library.support import eventually, notes
from library.tcp_faults import proxy

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


def test_task_when_sent_then_needs_no_redis(quiet, tmp_path):
    quiet.start_worker()
    with quiet.reached(), proxy(quiet.environment["RESULTS_URL"]) as between:
        between.fault = "refused"
        with mock.patch.dict(os.environ, RESULTS_URL=between.url):
            app = build(quiet.contract, Settings)
        app.signature(dict(quiet.probe("leave_trace", str(tmp_path)))).apply_async()
        assert eventually(lambda: notes(tmp_path)), quiet.log()
        assert not between.seen["connection"]


@pytest.mark.parametrize("late", [False, True])
def test_results_when_waited_for_then_arrive_at_once(quiet, late):
    """Before or after they are stored, alone and in a group."""
    quiet.start_worker()

    def given(value):
        return quiet.probe("return_given", value)

    with quiet.reached():
        alone = given(1).apply_async()
        both = group(given(1), given(2)).apply_async()
        if late:
            assert eventually(lambda: alone.ready() and both.ready()), quiet.log()
        assert (alone.get(timeout=30), both.get(timeout=30)) == (1, [1, 2])
