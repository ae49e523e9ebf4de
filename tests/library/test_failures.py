"""Failures of tasks: redelivery, stored states and dead-lettering."""

from __future__ import annotations

import json

import pytest

from library.support import HAS_RESULTS, IS_FIFO, broker, eventually, notes, running_service

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A service with short limits and three deliveries."""
    with running_service(
        tmp_path_factory.mktemp("logs"), 20, soft_limit_seconds=1, hard_limit_seconds=2, max_receive_count=3
    ) as running:
        running.start_worker()
        assert running.ready()
        yield running


@pytest.fixture(autouse=True)
def no_dead_letters(strict):
    """Begin every test with empty dead-letter queues."""
    broker.empty(strict, dead=True)


def test_result_says_retry_until_the_last_delivery_has_failed(strict, tmp_path):
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    traces = tmp_path / "traces"
    traces.mkdir()
    result = strict.send("leave_trace", str(traces), str(obstacle))
    states = []

    def dead():
        states.append(strict.state(result) if HAS_RESULTS else "")
        return strict.dead() == 1

    assert eventually(dead), strict.log()
    assert len(notes(traces)) == 3
    assert eventually(lambda: strict.waiting() == 0)
    seen = broker.see_dead(strict)
    assert "still there" in seen.reason["FailureException"]
    assert "leave_trace" in seen.reason["FailureTraceback"]
    assert seen.reason["FailureAttempt"] == "3"
    if HAS_RESULTS:
        assert strict.state(result) == "FAILURE"
        said = list(dict.fromkeys(state for state in states[:-1] if state != "PENDING"))
        assert said in (["RETRY", "FAILURE"], ["RETRY"])


def test_task_that_the_worker_does_not_know_waits_for_one_that_does_and_is_not_logged_in_full(strict):
    result = strict.send("of_a_newer_version", "for no log")
    if HAS_RESULTS:
        assert eventually(lambda: strict.state(result) == "RETRY"), strict.log()
    assert eventually(lambda: strict.dead() == 1), strict.log()
    if HAS_RESULTS:
        assert eventually(lambda: strict.state(result) == "FAILURE")
    assert "task library.probes.of_a_newer_version is unknown" in strict.log()
    assert "for no log" not in strict.log()
    assert "of_a_newer_version" in broker.see_dead(strict).reason["FailureException"]


def test_failure_declared_permanent_is_dead_lettered_at_once_with_its_reason(strict, tmp_path):
    result = strict.send("despair", str(tmp_path), group="group-1")
    assert eventually(lambda: strict.dead() == 1), strict.log()
    assert eventually(lambda: strict.waiting() == 0)
    assert len(notes(tmp_path)) == 1
    if HAS_RESULTS:
        assert strict.state(result) == "FAILURE"
    seen = broker.see_dead(strict)
    assert "nothing, because of nothing" in seen.reason["FailureException"]
    assert "despair" in seen.reason["FailureTraceback"]
    assert (seen.reason["FailureAttempt"], bool(seen.reason["FailureHost"])) == ("1", True)
    if IS_FIFO:
        assert seen.group == "group-1"
    # It can be redriven like any other, and is tried once more.
    broker.redrive(strict)
    assert eventually(lambda: len(notes(tmp_path)) == 2 and strict.dead() == 1), strict.log()
    assert {note.read_text() for note in notes(tmp_path)} == {"group-1"}


def test_pause_is_the_tasks_own_where_it_has_one(strict, tmp_path):
    strict.send("fail_patiently", str(tmp_path))
    assert eventually(lambda: len(notes(tmp_path)) == 2), strict.log()
    first, second = (int(note.name) for note in notes(tmp_path))
    assert 3 <= (second - first) / 1e9 <= 9
    assert eventually(lambda: strict.dead() == 1), strict.log()


def test_task_told_at_its_soft_limit_comes_back(strict, tmp_path):
    result = strict.send("overrun", str(tmp_path), 30)
    assert eventually(lambda: strict.dead() == 1), strict.log()
    assert [note.suffix for note in notes(tmp_path)] == [".began", ".told"] * 3
    if HAS_RESULTS:
        assert strict.state(result) == "FAILURE"


def test_task_killed_at_its_hard_limit_comes_back_and_is_dead_lettered(strict, tmp_path):
    # A longer limit of its own does not save it.
    result = strict.send("overrun", str(tmp_path), 30, True, time_limit=60, soft_time_limit=1)
    assert eventually(lambda: [note.suffix for note in notes(tmp_path)].count(".began") == 2), strict.log()
    if HAS_RESULTS:
        assert strict.state(result) == "RETRY"
    assert eventually(lambda: strict.dead() == 1), strict.log()
    assert [note.suffix for note in notes(tmp_path)] == [".began", ".told"] * 3
    if HAS_RESULTS:
        assert eventually(lambda: strict.state(result) == "FAILURE")
    lines = [json.loads(line) for line in strict.log().splitlines() if result.id in line and '"outcome"' in line]
    assert [line["outcome"] for line in lines] == ["retrying", "retrying", "dead_lettered"]
    # Of the process that was killed, and not of the one that stores its outcome.
    assert all(1.9 <= line["duration_seconds"] < 10 for line in lines)
    ages = [line["age_seconds"] for line in lines]
    assert ages == sorted(ages)
    assert ages[-1] >= 3


def test_task_whose_process_dies_comes_back_and_is_dead_lettered(strict, tmp_path):
    obstacle, traces = tmp_path / "obstacle", tmp_path / "traces"
    obstacle.touch()
    traces.mkdir()
    result = strict.send("die_while", str(traces), str(obstacle))
    assert eventually(lambda: strict.dead() == 1), strict.log()
    assert len(notes(traces)) == 3
    if HAS_RESULTS:
        assert eventually(lambda: strict.state(result) == "FAILURE")
    assert strict.workers[strict.worker.name].poll() is None


def test_retry_of_celery_sends_the_task_anew_and_counts_anew(strict, tmp_path):
    # More often than the queue would deliver one message.
    result = strict.send("retry_until", str(tmp_path), 4, group="group-1")
    assert eventually(lambda: len(notes(tmp_path)) == 4), strict.log()
    assert eventually(lambda: strict.waiting() == 0)
    assert strict.dead() == 0
    assert {note.read_text() for note in notes(tmp_path)} == {"group-1"}
    if HAS_RESULTS:
        assert eventually(lambda: strict.state(result) == "SUCCESS")


def test_after_all_that_the_worker_goes_on(strict, tmp_path):
    strict.send("leave_trace", str(tmp_path))
    assert eventually(lambda: notes(tmp_path)), strict.log()
    assert "Traceback" in strict.log()  # Failures are logged with it,
    assert "Unrecoverable" not in strict.log()  # and none of them ended the worker.
