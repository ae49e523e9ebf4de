"""Shutdown of a worker: what it finishes, what it releases, and when it exits."""

from __future__ import annotations

import signal
import time

import pytest

from library.support import IS_FIFO, broker, eventually, notes, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

PATIENCE_SECONDS = 6


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """A service with a soft shutdown of some seconds and a long visibility timeout."""
    with running_service(tmp_path_factory.mktemp("logs"), 60, soft_shutdown_seconds=PATIENCE_SECONDS) as running:
        yield running


@pytest.fixture
def busy(patient, tmp_path):
    """Start a worker and have it begin a task of so many seconds.

    Without a pause, the caller goes on before the worker's main process has read that the task has begun.
    """

    def start(seconds, stubborn=False, pause_seconds=0.1):
        label = tmp_path.name
        worker = patient.start_worker(label=label)
        assert patient.ready(label), patient.log(label)
        patient.send("overrun", str(tmp_path), seconds, stubborn)
        assert eventually(lambda: notes(tmp_path), pause_seconds=pause_seconds), patient.log(label)
        return worker

    yield start
    patient.stop_workers()
    patient.workers.clear()
    # What a test left behind is not for the next.
    broker.empty(patient, dead=False)


def test_task_that_ends_in_time_is_finished_and_the_worker_does_not_wait_longer(patient, busy, tmp_path):
    worker = busy(1.5)
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert time.monotonic() - began < PATIENCE_SECONDS
    assert [note.suffix for note in notes(tmp_path)] == [".began", ".ended"]
    assert eventually(lambda: patient.waiting() == 0)


@pytest.mark.parametrize("stubborn", [False, True])
def test_task_that_does_not_is_given_back_at_once(patient, busy, tmp_path, stubborn):
    worker = busy(60, stubborn)
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    worker.wait(PATIENCE_SECONDS + 10)
    assert time.monotonic() - began >= PATIENCE_SECONDS
    assert broker.given_back(patient), patient.log(tmp_path.name)
    assert patient.log(tmp_path.name).count('"outcome": "interrupted"') == 1
    assert [note.suffix for note in notes(tmp_path)] == [".began"]


def test_task_that_starts_as_its_worker_is_stopped_is_given_back(patient, busy, tmp_path):
    worker = busy(60, pause_seconds=0)
    worker.send_signal(signal.SIGTERM)
    worker.wait(PATIENCE_SECONDS + 10)
    assert broker.given_back(patient), patient.log(tmp_path.name)
    assert patient.log(tmp_path.name).count('"outcome": "interrupted"') == 1


def test_idle_worker_is_gone_at_once(patient, tmp_path):
    worker = patient.start_worker(label="idle")
    assert patient.ready("idle")
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert time.monotonic() - began < PATIENCE_SECONDS


def test_task_held_for_its_time_is_given_back(patient, tmp_path):
    if not IS_FIFO:
        pytest.skip("the broker itself holds it")
    worker = patient.start_worker(label="holding")
    assert patient.ready("holding")
    patient.send("leave_trace", str(tmp_path), countdown=60)
    assert eventually(lambda: broker.held(patient) == 1)
    time.sleep(1)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert broker.given_back(patient), patient.log("holding")
    broker.empty(patient, dead=False)


def test_second_sigterm_changes_nothing(patient, busy, tmp_path):
    worker = busy(2)
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert [note.suffix for note in notes(tmp_path)] == [".began", ".ended"]


@pytest.mark.parametrize("signals", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGQUIT], [signal.SIGINT] * 2], ids=str)
def test_who_cannot_wait_has_tasks_cancelled_and_given_back(patient, busy, tmp_path, signals):
    worker = busy(60)
    began = time.monotonic()
    for number in signals:
        worker.send_signal(number)
        time.sleep(0.5)
    worker.wait(20)
    assert time.monotonic() - began < PATIENCE_SECONDS + 1
    assert broker.given_back(patient), patient.log(tmp_path.name)
    assert patient.log(tmp_path.name).count('"outcome": "interrupted"') == 1
    assert [note.suffix for note in notes(tmp_path)] == [".began"]


def test_sigint_once_finishes_as_sigterm_does(patient, busy, tmp_path):
    worker = busy(1.5)
    worker.send_signal(signal.SIGINT)
    worker.wait(20)
    assert [note.suffix for note in notes(tmp_path)] == [".began", ".ended"]
    assert eventually(lambda: patient.waiting() == 0)
