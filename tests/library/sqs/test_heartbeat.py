"""The visibility heartbeat: messages of a live worker stay invisible; those of a dead one are soon redelivered."""

from __future__ import annotations

import signal
import time

import pytest

from library.support import eventually, module, notes, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

VISIBILITY_TIMEOUT_SECONDS = 3
LONGER_SECONDS = 3 * VISIBILITY_TIMEOUT_SECONDS


@pytest.fixture(scope="module")
def beating(tmp_path_factory):
    """A service with a heartbeat every second."""
    with running_service(
        tmp_path_factory.mktemp("logs"),
        heartbeat_seconds=1,
        visibility_timeout_seconds=VISIBILITY_TIMEOUT_SECONDS,
        retry_backoff_seconds=0.1,
        concurrency=2,  # One to run a task, one to receive it again.
    ) as running:
        running.start_worker(label="first")
        assert running.ready("first")
        yield running


def test_task_longer_than_the_visibility_timeout_runs_once(beating, tmp_path):
    beating.send("overrun", str(tmp_path), LONGER_SECONDS)
    assert eventually(lambda: len(notes(tmp_path)) == 2 and beating.waiting() == 0), beating.log("first")
    assert [note.suffix for note in notes(tmp_path)] == [".began", ".ended"]


def test_task_held_for_its_time_runs_once(beating, tmp_path, monkeypatch):
    # So that on standard queues as well the worker holds it, as it does beyond what SQS can delay.
    monkeypatch.setattr(module("brokers.sqs.properties"), "LONGEST_DELAY_SECONDS", 0)
    began = time.monotonic()
    beating.send("leave_trace", str(tmp_path), countdown=LONGER_SECONDS, group="held")
    assert eventually(lambda: notes(tmp_path)), beating.log("first")
    assert time.monotonic() - began >= LONGER_SECONDS - 1
    assert eventually(lambda: beating.waiting() == 0)
    assert len(notes(tmp_path)) == 1


def test_what_a_killed_worker_held_comes_back_within_a_visibility_timeout(beating, tmp_path):
    beating.send("overrun", str(tmp_path), 60, group="killed")
    assert eventually(lambda: notes(tmp_path)), beating.log("first")
    time.sleep(2 * VISIBILITY_TIMEOUT_SECONDS)
    beating.workers["first"].send_signal(signal.SIGKILL)
    beating.start_worker(label="second")
    assert beating.ready("second")
    # Twice, because the emulator may hand it to the last poll of the worker that is dead.
    assert eventually(lambda: len(notes(tmp_path)) == 2, 2 * VISIBILITY_TIMEOUT_SECONDS + 3), beating.log("second")
