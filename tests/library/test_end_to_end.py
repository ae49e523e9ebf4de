"""The promises of the service, kept by real workers on the emulator."""

from __future__ import annotations

import time

import pytest
from celery import chord

from library.support import (
    CONTRACT,
    HAS_RESULTS,
    IS_FIFO,
    VISIBILITY_TIMEOUT_SECONDS,
    broker,
    eventually,
    module,
    notes,
    tasks_of,
)

contract = module("service").contract()

pytestmark = pytest.mark.end_to_end

QUEUES = contract.queues


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_task_on_every_queue_is_done_once_with_its_result(service, queue, tmp_path):
    result = service.send("leave_trace", str(tmp_path), queue=queue, group="group-1")
    if HAS_RESULTS:
        with service.reached():
            assert result.get(timeout=40) == "done"
    assert eventually(lambda: notes(tmp_path)), service.log(queue.name)
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


def module_with(example):
    """Return the name of the first queue's module; skip the test if the example is no longer there."""
    tasks = tasks_of(QUEUES[0].name)
    if not hasattr(tasks, example):
        pytest.skip("the example is gone")
    return tasks.__name__


@pytest.mark.skipif(not HAS_RESULTS, reason="chords need results")
def test_chord_of_the_examples_adds_up(service):
    tasks = module_with("count_words_of_all")
    code = (
        f"from {tasks} import count_words_of_all\n"
        f"chord = count_words_of_all(['one', 'one two', 'one two three'])\n"
        f"print(chord.apply_async(MessageGroupId='g').get(timeout=60))\n"
    )
    run = service.python("-c", code)
    assert (run.stdout, run.returncode) == ("6\n", 0), run.stderr


@pytest.mark.skipif(not HAS_RESULTS, reason="progress is a result")
def test_report_of_the_examples_tells_its_progress_and_ends_when_it_is_cancelled(service):
    tasks = module_with("cancel_report")
    code = (
        f"import time\n"
        f"from celery.exceptions import TaskRevokedError\n"
        f"from {CONTRACT['package']}.celery import app\n"
        f"from {tasks} import cancel_report\n"
        f"report = app.send('{QUEUES[0].name}.write_report', 'customer-7', 1000, 0.05, group='report')\n"
        f"while report.state != 'PROGRESS': time.sleep(0.05)\n"
        f"print(report.info['of'])\n"
        f"app.send(cancel_report, report.id, group='another')\n"
        f"try: report.get(timeout=40)\n"
        f"except TaskRevokedError as error: print(report.state, error)\n"
    )
    run = service.python("-c", code)
    assert (run.stdout, run.returncode) == ("1000\nREVOKED cancelled\n", 0), run.stderr
    assert eventually(lambda: service.waiting() == 0), service.log()
    assert service.dead() == 0


@pytest.mark.skipif(HAS_RESULTS, reason="chords work where there are results")
def test_chord_without_results_is_an_error_that_says_so(service):
    signature = service.probe("leave_trace", "folder")
    with pytest.raises(NotImplementedError, match="requires a result backend"):
        chord([signature], signature, app=service.app).apply_async()


def test_command_sends_and_waits(service):
    module_with("count_words")
    wait = ("--wait", "40") if HAS_RESULTS else ()
    sent = service.python("-m", CONTRACT["package"], "send", f"{QUEUES[0].name}.count_words", "a b", "--group=g", *wait)
    assert sent.returncode == 0, sent.stderr
    assert len(sent.stdout.splitlines()[0]) == 36
    assert sent.stdout.splitlines()[1:] == (["2"] if HAS_RESULTS else [])


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
        assert service.environment["AWS_SECRET_ACCESS_KEY"] not in service.log(queue.name)
