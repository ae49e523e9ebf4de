"""The result backend is unavailable: tasks run once, nothing that was done is called failed, and no chord is stuck."""

from __future__ import annotations

import json
import signal
import time

import pytest
from celery import chord

from library.support import CONTRACT, HAS_RESULTS, broker, eventually, module, notes, running_service
from library.support import outages as option

delivery = module("delivery")
storing = module("storing")

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not HAS_RESULTS, reason="there is no result backend"),
]

OUTAGE_SECONDS = 12

HANDED_OVER = "result handed over to celery_aws.store_outcome"


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A service without a worker, whose messages stay invisible for longer than an outage."""
    with running_service(tmp_path_factory.mktemp("logs"), soft_limit_seconds=3, hard_limit_seconds=5) as running:
        yield running


@pytest.fixture
def backend(calm, tmp_path):
    """Its result backend, and a worker that reaches it through a proxy."""
    with option.results_behind(calm.environment) as outages:
        calm.start_worker(label=tmp_path.name, **outages.variables)
        assert calm.ready(tmp_path.name), calm.log(tmp_path.name)
        yield outages
        calm.stop_workers()
        calm.workers.clear()
        broker.empty(calm, dead=True)


def states(service, results):
    return {service.state(result) for result in results}


@pytest.mark.parametrize("kind", option.KINDS)
def test_tasks_when_the_result_backend_is_out_then_run_once_and_have_results_afterwards(calm, backend, tmp_path, kind):
    folders = [tmp_path / str(number) for number in range(12)]
    for folder in folders:
        folder.mkdir()
    with backend.outage(kind):
        results = [calm.send("leave_trace", str(folder), group=folder.name) for folder in folders]
        assert eventually(lambda: sum(map(len, map(notes, folders))) >= 4), calm.log(tmp_path.name)
        # Longer than the hard limit, which is for the task's own code; and than two requests that have no end.
        time.sleep(2 * delivery.REQUEST_SECONDS + 2 if kind in ("hang", "drip") else OUTAGE_SECONDS)
    assert eventually(lambda: states(calm, results) == {"SUCCESS"}, 90), calm.log(tmp_path.name)
    assert eventually(lambda: calm.waiting() == 0), calm.log(tmp_path.name)
    assert [len(notes(folder)) for folder in folders] == [1] * len(folders), calm.log(tmp_path.name)
    assert calm.dead() == 0
    for never in ("failed after", HANDED_OVER):
        assert never not in calm.log(tmp_path.name)


def test_progress_when_the_result_backend_is_out_then_is_not_waited_for(calm, backend, tmp_path):
    with backend.outage(option.KINDS[0]):
        result = calm.send("tell_progress", str(tmp_path))
        assert eventually(lambda: "state PROGRESS not stored" in calm.log(tmp_path.name), 30), calm.log(tmp_path.name)
    assert eventually(lambda: calm.state(result) == "SUCCESS", 60), calm.log(tmp_path.name)
    assert len(notes(tmp_path)) == 1


def test_failure_when_the_result_backend_is_out_then_calls_its_errback_once(calm, backend, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "errbacks").mkdir()
    task = calm.probe("despair", str(tmp_path / "runs"))
    task.link_error(calm.probe("mark", str(tmp_path / "errbacks"), ".errback"))
    with calm.reached(), backend.outage(option.KINDS[0]):
        result = task.apply_async()
        assert eventually(lambda: notes(tmp_path / "runs")), calm.log(tmp_path.name)
        time.sleep(5)
    assert eventually(lambda: calm.state(result) == "FAILURE", 60), calm.log(tmp_path.name)
    assert eventually(lambda: notes(tmp_path / "errbacks")), calm.log(tmp_path.name)
    assert eventually(lambda: calm.waiting() == 0)
    assert (len(notes(tmp_path / "runs")), len(notes(tmp_path / "errbacks"))) == (1, 1)


def test_chord_when_the_result_backend_is_out_then_runs_its_body_once(calm, backend, tmp_path):
    (tmp_path / "body").mkdir()
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    steps = [calm.probe("overrun", str(folder), 2) for folder in folders]
    with calm.reached():
        result = chord(steps, calm.probe("follow", str(tmp_path / "body")), app=calm.app).apply_async(
            MessageGroupId="chord"
        )
    assert eventually(lambda: any(map(notes, folders)), 30), calm.log(tmp_path.name)
    with backend.outage(option.KINDS[0]):
        time.sleep(8)
    assert eventually(lambda: calm.state(result) == "SUCCESS", 120), calm.log(tmp_path.name)
    assert eventually(lambda: calm.waiting() == 0, 60)
    assert len(notes(tmp_path / "body")) == 1
    assert [len(notes(folder)) for folder in folders] == [2, 2, 2]  # Began and ended.
    assert calm.dead() == 0


@pytest.mark.parametrize("kind", [*option.KINDS[:1], "hang"])
def test_worker_when_stopped_during_an_outage_then_hands_outcomes_over(calm, backend, tmp_path, kind):
    (tmp_path / "errbacks").mkdir()
    failing = calm.probe("despair", str(tmp_path), group="failing")
    failing.link_error(calm.probe("mark", str(tmp_path / "errbacks"), ".errback"))
    calm.stop_workers()
    calm.start_worker(label=tmp_path.name, extra=["--concurrency=4"], **backend.variables)
    with backend.outage(kind):
        results = [calm.send("leave_trace", str(tmp_path), group=f"g{number}") for number in range(2)]
        # Too large for a message, also when it is compressed: the one result that is lost.
        lost = calm.send("return_noise", str(tmp_path), CONTRACT["max_message_bytes"] * 3 // 2, group="lost")
        with calm.reached():
            failed = failing.apply_async()
        assert eventually(lambda: len(notes(tmp_path)) == 4), calm.log(tmp_path.name)
        time.sleep(2)
        worker = calm.workers[tmp_path.name]
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert states(calm, [*results, lost, failed]) == {"PENDING"}
    assert calm.log(tmp_path.name).count(HANDED_OVER) == 4
    label = f"{tmp_path.name}-another"
    calm.start_worker(label=label)
    assert eventually(lambda: states(calm, results) == {"SUCCESS"}, 60), calm.log(label)
    assert eventually(lambda: calm.state(failed) == "FAILURE"), calm.log(label)
    assert eventually(lambda: calm.state(lost) == "FAILURE"), calm.log(label)
    with calm.reached():
        assert "HopelessError" in repr(failed.result)
        assert "too large for a message" in calm.log(tmp_path.name)
        assert type(lost.result).__name__ == "ResultLostError"
    assert eventually(lambda: calm.waiting() == 0)
    assert (len(notes(tmp_path)), len(notes(tmp_path / "errbacks")), calm.dead()) == (4, 1, 1)


def test_outage_when_longer_than_messages_are_invisible_then_neither_repeats_nor_fails_tasks(
    tmp_path_factory, tmp_path
):
    """Also not if even the messages that hold the outcomes have had all of their attempts meanwhile."""
    short = {"visibility_timeout_seconds": 95, "soft_limit_seconds": 3, "hard_limit_seconds": 5}
    with (
        running_service(
            tmp_path_factory.mktemp("logs"), max_countdown_seconds=30, max_receive_count=1, **short
        ) as service,
        option.results_behind(service.environment) as outages,
    ):
        service.start_worker(**outages.variables)
        assert service.ready(), service.log()
        folders = [tmp_path / str(number) for number in range(4)]
        for folder in folders:
            folder.mkdir()
        steps = [service.probe("leave_trace", str(folder), group=folder.name) for folder in folders[:2]]
        with outages.outage(option.KINDS[0]):
            plain = [service.send("leave_trace", str(folder), group=folder.name) for folder in folders[2:]]
            began = time.monotonic()
            assert eventually(lambda: service.log().count(HANDED_OVER) >= 2, 120), service.log()
            held = service.queue.hold_seconds - delivery.RESERVE_SECONDS - storing.MAX_BACKOFF_SECONDS
            assert time.monotonic() - began >= held
            time.sleep(80)
        assert eventually(lambda: states(service, plain) == {"SUCCESS"}, 120), service.log()
        body = service.probe("follow", str(tmp_path / "0"), group="body")
        with service.reached():
            assert chord(steps, body, app=service.app).apply_async(MessageGroupId="chord").get(timeout=60) == "done"
        assert eventually(lambda: service.waiting() == 0, 60)
        assert [len(notes(folder)) for folder in folders[2:]] == [1, 1]
        assert service.dead() == 0
        outcomes = [json.loads(line)["outcome"] for line in service.log().splitlines() if '"outcome"' in line]
        assert set(outcomes) <= {"succeeded", "retry_requested"}
