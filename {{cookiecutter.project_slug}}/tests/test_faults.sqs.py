"""The worker on bad days: polls that fail in every way, messages nobody can read, processes that die."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time

import pytest

from tests.conftest import CONTRACT
from tests.faults import FAULTS, proxy, refusing
from tests.test_end_to_end import QUEUES, app, eventually, messages_in, send_probe, sender

__all__ = ["sender"]  # a fixture

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(240)]

QUEUE = QUEUES[0]
MAIN = app.contract.queue_name(QUEUE, "development")
DEAD_LETTERS = app.contract.dead_letter_queue_name(QUEUE, "development")


@contextlib.contextmanager
def worker_of(service, tmp_path, **variables):
    """Run a worker of the first queue with other variables, instead of the one that runs anyway."""
    other = dataclasses.replace(
        service, environment={**service.environment, **variables}, logs=tmp_path / "logs", workers={}
    )
    other.logs.mkdir()
    service.workers[QUEUE.name].terminate()
    service.workers[QUEUE.name].wait(20)
    try:
        other.start_worker(QUEUE.name)
        yield other
    finally:
        other.stop_workers()
        service.start_worker(QUEUE.name)


def test_worker_survives_every_kind_of_failed_poll_and_goes_on(service, sender, tmp_path):
    with (
        proxy(service.environment["AWS_ENDPOINT_URL"]) as bad_day,
        worker_of(service, tmp_path, AWS_ENDPOINT_URL=bad_day.url) as other,
    ):
        assert eventually(lambda: " ready." in other.log(QUEUE.name)), other.log(QUEUE.name)
        for fault in FAULTS:
            if fault == "refused":
                with refusing(bad_day):
                    assert eventually(lambda: "Failed to connect" in other.log(QUEUE.name)), other.log(QUEUE.name)
            else:
                bad_day.faulty_polls = 0
                bad_day.fault = fault
                assert eventually(lambda: bad_day.faulty_polls), fault
                bad_day.fault = ""
            traces = tmp_path / fault
            traces.mkdir()
            send_probe(sender, QUEUE, folder=str(traces))
            # A poll that hangs is given up after the wait of a long poll and five seconds.
            done = eventually(lambda folder=traces: list(folder.iterdir()), 15)
            assert done, f"after {fault}: {other.log(QUEUE.name)[-3000:]}"
            assert other.workers[QUEUE.name].poll() is None, f"the worker ended after {fault}"
        # All but a reset of a connection that had been used before: curl tries that again by itself.
        assert other.log(QUEUE.name).count("answered again") >= len(FAULTS) - 1


@pytest.mark.parametrize(
    ("variables", "fault", "advice"),
    [
        ({"ENVIRONMENT": "nowhere"}, "", "create the queue, or check ENVIRONMENT"),
        ({}, "denied", "let this role or user"),
    ],
    ids=["no-such-queue", "no-rights"],
)
def test_worker_that_cannot_begin_ends_and_says_what_to_do(service, tmp_path, variables, fault, advice):
    with proxy(service.environment["AWS_ENDPOINT_URL"]) as bad_day:
        bad_day.fault = fault
        with worker_of(service, tmp_path, AWS_ENDPOINT_URL=bad_day.url, **variables) as other:
            assert eventually(lambda: other.workers[QUEUE.name].poll() == 1), other.log(QUEUE.name)
            assert advice in other.log(QUEUE.name)
            assert "Traceback" not in other.log(QUEUE.name)


def test_messages_that_cannot_be_read_end_in_the_dead_letter_queue_and_the_worker_goes_on(service, sender, tmp_path):
    readable = {"content-type": "application/json", "content-encoding": "utf-8"}
    pickled = {"content-type": "application/x-python-serialize"}
    nowhere: dict = {}
    properties = {"delivery_info": nowhere}
    no_id = {"body": "[[], {}, {}]", **readable, "headers": {"task": "x"}, "properties": properties}
    unreadable = [
        "plain text",
        '{"Records": []}',
        json.dumps({"body": "x", "properties": "no object"}),
        json.dumps(no_id),
        json.dumps(dict(no_id, headers={"task": "no.such.task", "id": "1"})),
        json.dumps(dict(no_id, body="{", headers={"task": "tests.probes.leave_trace", "id": "2"})),
        json.dumps(dict(no_id, **pickled, headers={"task": "x", "id": "3"})),
    ]
    sqs = service.sqs()
    url = sqs.get_queue_url(QueueName=MAIN)["QueueUrl"]
    fifo = CONTRACT["broker"] == "sqs-fifo"
    for number, body in enumerate(unreadable):
        order = {"MessageGroupId": f"foreign-{number}", "MessageDeduplicationId": f"{time.time()}-{number}"}
        sqs.send_message(QueueUrl=url, MessageBody=body, **(order if fifo else {}))
    before = messages_in(sqs, DEAD_LETTERS)
    assert eventually(lambda: messages_in(sqs, DEAD_LETTERS) == before + len(unreadable), 60), service.log(QUEUE.name)
    assert service.workers[QUEUE.name].poll() is None
    send_probe(sender, QUEUE, folder=str(tmp_path))
    assert eventually(lambda: list(tmp_path.iterdir()))
    sqs.purge_queue(QueueUrl=sqs.get_queue_url(QueueName=DEAD_LETTERS)["QueueUrl"])


def test_task_whose_process_is_killed_comes_back(service, sender, tmp_path):
    traces, obstacle = tmp_path / "traces", tmp_path / "obstacle"
    traces.mkdir()
    obstacle.touch()
    sender.send_task(
        "tests.probes.die_while",
        (str(traces), str(obstacle)),
        queue=sender.amqp.queues[app.contract.celery_name(QUEUE)],
        MessageGroupId="g",
    )
    assert eventually(lambda: len(list(traces.iterdir())) >= 2), service.log(QUEUE.name)
    obstacle.unlink()
    assert eventually(lambda: messages_in(service.sqs(), MAIN) == 0)
    assert len(list(traces.iterdir())) <= QUEUE.max_receive_count
    assert messages_in(service.sqs(), DEAD_LETTERS) == 0
