"""The promises of the service, kept by real workers on the emulator."""

from __future__ import annotations

import time

import pytest
from celery import chord
from celery.exceptions import TaskRevokedError

from library.support import (
    CONTRACT,
    HAS_RESULTS,
    IS_FIFO,
    VISIBILITY_TIMEOUT_SECONDS,
    broker,
    eventually,
    module,
    notes,
)

contract = module("service").contract()
errors = module("errors")

pytestmark = pytest.mark.end_to_end

QUEUES = contract.queues


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_task_on_every_queue_is_done_once_with_its_result(service, queue, tmp_path):
    result = service.send("leave_trace", str(tmp_path), queue=queue, group="group-1")
    if HAS_RESULTS:
        with service.reached():
            assert result.get(timeout=40) == "done"
    assert eventually(lambda: notes(tmp_path)), service.log(contract.worker_of(queue).name)
    assert eventually(lambda: service.waiting(queue) == 0)
    assert [note.read_text() for note in notes(tmp_path)] == ["group-1"]


def test_failing_task_is_delivered_as_often_as_agreed_then_dead_lettered_then_redriven(service, tmp_path):
    traces, obstacle = tmp_path / "traces", tmp_path / "obstacle"
    traces.mkdir()
    obstacle.touch()

    service.send("leave_trace", str(traces), str(obstacle), group="group-1")
    assert eventually(lambda: service.dead() == 1), service.log()
    assert eventually(lambda: service.waiting() == 0)
    assert len(notes(traces)) == service.queue.max_receive_count

    obstacle.unlink()
    broker.redrive(service)
    assert eventually(lambda: len(notes(traces)) == service.queue.max_receive_count + 1)
    assert eventually(lambda: service.waiting() + service.dead() == 0)
    assert {note.read_text() for note in notes(traces)} == {"group-1"}


def test_task_with_a_countdown_beyond_its_visibility_timeout_runs_once(service, tmp_path):
    if IS_FIFO:
        pytest.skip("a worker holds it, and the contract's visibility timeout covers that")
    began = time.monotonic_ns()
    service.send("leave_trace", str(tmp_path), countdown=VISIBILITY_TIMEOUT_SECONDS + 2)
    assert eventually(lambda: notes(tmp_path)), service.log()
    assert eventually(lambda: service.waiting() == 0)
    (trace,) = notes(tmp_path)
    assert int(trace.name) - began >= (VISIBILITY_TIMEOUT_SECONDS + 2) * 1e9


@pytest.mark.skipif(not HAS_RESULTS, reason="chords need results")
def test_chord_hands_all_results_to_its_callback(service, tmp_path):
    steps = [service.probe("return_text", str(tmp_path), length) for length in (1, 2, 3)]
    with service.reached():
        done = chord(steps, service.probe("return_given"), app=service.app).apply_async(MessageGroupId="g")
        assert done.get(timeout=60) == ["x", "xx", "xxx"]


@pytest.mark.skipif(not HAS_RESULTS, reason="progress is a result")
def test_task_when_it_checks_for_a_cancellation_then_is_revoked(service, tmp_path):
    with service.reached():
        result = service.probe("work_until_cancelled", str(tmp_path)).apply_async()
        assert eventually(lambda: result.state == "PROGRESS"), service.log()
        assert result.info == {"done": 1}
        service.app.backend.store_result(f"{result.id}-cancelled", None, "SUCCESS")
        # Raised, it would keep the result alive for longer than the result backend.
        revoked = result.get(timeout=40, propagate=False)
        assert (type(revoked), str(revoked), result.state) == (TaskRevokedError, "cancelled", "REVOKED")
    assert eventually(lambda: service.waiting() == 0), service.log()
    assert service.dead() == 0


@pytest.mark.skipif(HAS_RESULTS, reason="chords work where there are results")
def test_chord_without_results_is_an_error_that_says_so(service):
    signature = service.probe("leave_trace", "folder")
    with pytest.raises(NotImplementedError, match="requires a result backend"):
        chord([signature], signature, app=service.app).apply_async()


def test_celery_purge_when_called_then_deletes_nothing(service, tmp_path):
    result = service.send("leave_trace", str(tmp_path), countdown=3)
    with service.reached(), pytest.raises(errors.PurgeRefusedError, match="queues purge"):
        service.app.control.purge()
    assert eventually(lambda: notes(tmp_path)), (result.id, service.log())


def test_command_sends_and_waits(service):
    wait = ("--wait", "40") if HAS_RESULTS else ()
    sent = service.python("-m", CONTRACT["package"], "send", f"{QUEUES[0].name}.measure", "a b", "--group=g", *wait)
    assert sent.returncode == 0, sent.stderr
    assert len(sent.stdout.splitlines()[0]) == 36
    assert sent.stdout.splitlines()[1:] == (["3"] if HAS_RESULTS else [])


def test_everything_that_follows_a_task_stays_in_its_group(service, tmp_path):
    folder = str(tmp_path)
    step = service.probe("leave_trace", folder, group="family")
    after = service.probe("follow", folder)
    del after.options["MessageGroupId"]
    with service.reached():
        (step | after).apply_async()
        step.clone().apply_async(link=after.clone())
        service.probe("send_on", folder, group="family").apply_async()
        service.probe("retry_until", folder, 7, group="family").apply_async()
        if HAS_RESULTS:
            chord([step.clone(), step.clone()], after.clone(), app=service.app).apply_async(MessageGroupId="family")
    least = 10 if HAS_RESULTS else 7
    assert eventually(lambda: len(notes(tmp_path)) >= least), service.log()
    assert eventually(lambda: service.waiting() == 0), service.log()
    assert {note.read_text() for note in notes(tmp_path)} == {"family"}


@pytest.mark.skipif(CONTRACT["credentials"] != "keys", reason="only the variant with keys has a secret")
def test_no_log_line_holds_the_secret(service):
    for queue in QUEUES:
        assert service.environment["AWS_SECRET_ACCESS_KEY"] not in service.log(contract.worker_of(queue).name)
