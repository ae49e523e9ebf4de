"""Faults of RabbitMQ and of workers: lost connections, restarts, undecodable messages, workers that die."""

from __future__ import annotations

import json
import random
import signal
import time

import pytest

from celery_aws.brokers.rabbitmq import work_queue
from celery_aws.dev.brokers import rabbitmq as development
from library.support import broker, eventually, module, notes, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A service without a worker."""
    with running_service(tmp_path_factory.mktemp("logs"), max_receive_count=3) as running:
        yield running


@pytest.fixture
def weather(calm, tmp_path):
    """A proxy in front of its broker, and a worker behind it."""
    with broker.faulty(calm) as (between, variables):
        calm.start_worker(label=tmp_path.name, **variables)
        assert calm.ready(tmp_path.name), calm.log(tmp_path.name)
        yield between
        calm.stop_workers()
        calm.workers.clear()
    for dead in (False, True):
        broker.empty(calm, dead=dead)


def publish(service, body, **headers):
    """Send anything to the first queue."""
    with service.app.connection_for_write() as connection:
        channel = connection.default_channel
        message = channel.prepare_message(body, None, "application/json", "utf-8", headers)
        channel.basic_publish(message, exchange="tasks", routing_key=service.queue.name)


def test_worker_connects_again_after_its_connection_was_cut(calm, weather, tmp_path):
    for number in range(3):
        weather.cut()
        calm.send("leave_trace", str(tmp_path))
        assert eventually(lambda expected=number + 1: len(notes(tmp_path)) >= expected), calm.log(tmp_path.name)
    assert calm.workers[tmp_path.name].poll() is None
    assert eventually(lambda: calm.waiting() == 0)


def test_task_whose_connection_is_lost_is_cancelled_here_and_done_again(calm, weather, tmp_path):
    calm.send("overrun", str(tmp_path), 8)
    assert eventually(lambda: notes(tmp_path)), calm.log(tmp_path.name)
    weather.cut()
    assert eventually(lambda: [note.suffix for note in notes(tmp_path)].count(".ended") == 1), calm.log(tmp_path.name)
    assert eventually(lambda: calm.waiting() == 0)
    # The first run was ended in the middle.
    assert [note.suffix for note in notes(tmp_path)] == [".began", ".began", ".ended"]


def test_connection_that_has_gone_silent_is_given_up(calm, weather, tmp_path):
    weather.fault = "hang"
    calm.send("leave_trace", str(tmp_path))
    time.sleep(5)
    assert notes(tmp_path) == []
    began = time.monotonic()
    assert eventually(lambda: "Connection to broker lost" in calm.log(tmp_path.name), 70), calm.log(tmp_path.name)
    assert time.monotonic() - began < 40
    weather.fault = ""
    assert eventually(lambda: notes(tmp_path), 60), calm.log(tmp_path.name)
    assert eventually(lambda: calm.waiting() == 0)


def test_message_that_kills_its_worker_each_time_is_dead_lettered_after_the_same_count(calm, tmp_path):
    for delivery in range(1, calm.queue.max_receive_count + 1):
        label = f"dies-{delivery}"
        worker = calm.start_worker(label=label)
        assert calm.ready(label), calm.log(label)
        if delivery == 1:
            calm.send("overrun", str(tmp_path), 60)
        assert eventually(lambda expected=delivery: len(notes(tmp_path)) == expected), calm.log(label)
        assert calm.dead() == 0
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert eventually(lambda: calm.dead() == 1)
    assert len(notes(tmp_path)) == calm.queue.max_receive_count
    broker.empty(calm, dead=True)


def test_failures_and_deaths_are_counted_together(calm, tmp_path):
    obstacle, traces = tmp_path / "obstacle", tmp_path / "traces"
    obstacle.touch()
    traces.mkdir()
    worker = calm.start_worker(label="first")
    assert calm.ready("first")
    calm.send("stay_or_fail", str(traces), str(obstacle))  # Fails on its first delivery, and stays on its second.
    assert eventually(lambda: len(notes(traces)) == 2), calm.log("first")
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    calm.start_worker(label="second")
    assert eventually(lambda: calm.dead() == 1), calm.log("second")  # And fails on its third, which is its last.
    assert len(notes(traces)) == 3
    assert broker.see_dead(calm).reason["FailureAttempt"] == "3"
    calm.stop_workers()
    calm.workers.clear()
    broker.empty(calm, dead=True)


def test_message_when_taken_back_too_often_then_is_dead_lettered(calm, tmp_path):
    """RabbitMQ 4.3 counts what it takes back, because a worker held it for too long, under another name only.

    It does so itself; here an older one has it from who sends.
    """
    if version(calm) >= (4, 3):
        pytest.skip("RabbitMQ sets this header itself; see the test of the consumer timeout")
    headers = {"x-acquired-count": calm.queue.max_receive_count}
    publish(calm, json.dumps([[str(tmp_path)], {}, {}]), task="library.probes.leave_trace", id="1", **headers)
    with calm.app.connection_for_write() as connection:  # What comes for the first time has no count of its broker's.
        channel = connection.default_channel
        assert eventually(lambda: calm.waiting() == 1)
        channel.basic_reject(channel.basic_get(calm.queue.name).delivery_tag, requeue=True)
    calm.start_worker(label="counted")
    assert eventually(lambda: calm.dead() == 1), calm.log("counted")
    assert eventually(lambda: calm.waiting() == 0)
    assert notes(tmp_path) == []
    assert "its workers died or held it too long" in broker.see_dead(calm).reason["FailureException"]
    calm.stop_workers()
    calm.workers.clear()
    broker.empty(calm, dead=True)


def version(service):
    """Return the version of the broker, such as (4, 3)."""
    with service.app.connection_for_write() as connection:
        connection.connect()
        return tuple(map(int, connection.connection.server_properties["version"].split(".")[:2]))


@pytest.fixture
def impatient(calm):
    """The service, whose broker takes back what a worker holds for two seconds."""
    if version(calm) < (3, 12):
        pytest.skip("RabbitMQ has no consumer timeout for a queue yet")
    queue = work_queue(calm.queue.name, calm.contract)
    with calm.app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.queue_delete(queue.name)
        arguments = {**queue.queue_arguments, "x-consumer-timeout": 2_000}
        channel.queue_declare(queue.name, durable=True, auto_delete=False, arguments=arguments)
    yield calm
    calm.stop_workers()
    calm.workers.clear()
    broker.empty(calm, dead=True)
    with calm.app.connection_for_write() as connection:
        connection.default_channel.queue_delete(queue.name)


def test_message_when_held_beyond_the_consumer_timeout_then_is_counted(impatient, tmp_path):
    """The worker cancels the task, as it no longer has the message; in the end the message is dead-lettered."""
    impatient.start_worker(label="held")
    assert impatient.ready("held"), impatient.log("held")
    impatient.send("overrun", str(tmp_path), 60)
    assert eventually(lambda: impatient.dead() == 1, 90), impatient.log("held")
    assert eventually(lambda: impatient.waiting() == 0)
    assert [note.suffix for note in notes(tmp_path)] == [".began"] * impatient.queue.max_receive_count


def test_what_is_no_failure_is_not_dead_lettered_even_on_its_last_delivery(tmp_path_factory, tmp_path):
    retried, revoked = tmp_path / "retried", tmp_path / "revoked"
    retried.mkdir()
    revoked.mkdir()
    with running_service(tmp_path_factory.mktemp("logs"), max_receive_count=1) as service:
        service.start_worker()
        assert service.ready(), service.log()
        service.send("retry_until", str(retried), 3)
        result = service.send("overrun", str(revoked), 60)
        assert eventually(lambda: len(notes(retried)) == 3 and notes(revoked)), service.log()
        with service.reached():
            service.app.control.revoke(result.id, terminate=True)
        assert eventually(lambda: service.waiting() == 0), service.log()
        assert service.dead() == 0


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ("nonsense", {}),
        ('{"no": "task"}', {}),
        (json.dumps([[], {}, {}]), {"task": "no.such_task", "id": "1"}),
        ("{broken", {"task": "library.probes.leave_trace", "id": "2"}),
        (json.dumps([[], {}, {}]), {"task": "library.probes.leave_trace", "id": "3", "stamped_headers": 7}),
        (json.dumps([[], {}, {}]), {"task": ["no", "name"], "id": "4"}),
    ],
    ids=["foreign text", "foreign JSON", "unknown task", "broken body", "broken header", "no name"],
)
def test_message_when_it_cannot_be_processed_then_is_dead_lettered(calm, weather, tmp_path, body, headers):
    publish(calm, body, **headers)
    assert eventually(lambda: calm.dead() == 1), calm.log(tmp_path.name)
    assert eventually(lambda: calm.waiting() == 0)
    calm.send("leave_trace", str(tmp_path))
    assert eventually(lambda: notes(tmp_path)), calm.log(tmp_path.name)


def test_message_as_large_as_may_be_sent_is_dead_lettered_with_its_reason(calm, weather, tmp_path):
    room = calm.contract.max_message_bytes - 2_000
    calm.send("despair", str(tmp_path / ("x" * room)))
    assert eventually(lambda: calm.dead() == 1), calm.log(tmp_path.name)[-3000:]
    assert broker.see_dead(calm).reason["FailureAttempt"]
    assert calm.workers[tmp_path.name].poll() is None


def test_task_that_expired_is_dropped_by_its_worker(calm, tmp_path):
    calm.send("leave_trace", str(tmp_path), expires=1)
    time.sleep(2)
    worker = calm.start_worker(label="late")
    assert calm.ready("late")
    assert eventually(lambda: calm.waiting() == 0), calm.log("late")
    assert (calm.dead(), notes(tmp_path), worker.poll()) == (0, [], None)
    calm.stop_workers()
    calm.workers.clear()


def test_sender_is_told_if_the_queue_is_gone(calm):
    missing = module("errors").QueueMissingError
    with calm.app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.queue_delete(calm.queue.name)
        message = channel.prepare_message("{}", None, "application/json", "utf-8", {})
        with pytest.raises(missing, match=f"no queue is bound for it: NO_ROUTE \\({calm.queue.name} of tasks\\)"):
            channel.basic_publish(message, exchange="tasks", routing_key=calm.queue.name)
        # The channel has not lost count of what was confirmed.
        module("brokers.rabbitmq.topology").declare(connection.connection, calm.contract)
        channel.basic_publish(message, exchange="tasks", routing_key=calm.queue.name)
    broker.empty(calm, dead=False)


def test_wrong_password_is_told_once_and_shown_nowhere(calm, tmp_path):
    worker = calm.start_worker(label="stranger", BROKER_PASSWORD="not-the-password")
    assert eventually(lambda: "ACCESS_REFUSED" in calm.log("stranger")), calm.log("stranger")
    worker.kill()
    worker.wait()
    assert "not-the-password" not in calm.log("stranger")
    assert development.PASSWORD not in calm.log("stranger")


def test_broker_that_restarts_loses_nothing(tmp_path_factory, tmp_path, monkeypatch):
    folders = [tmp_path / str(number) for number in range(60)]
    for folder in folders:
        folder.mkdir()
    with development.server() as server:
        monkeypatch.setenv(development.RUNNING, server.address)
        with running_service(tmp_path_factory.mktemp("logs"), max_receive_count=20) as service:
            with service.app.batching():
                for folder in folders[:40]:
                    service.probe("overrun", str(folder), 0.3).delay()
            with service.app.batching():
                for folder in folders[40:]:
                    service.probe("leave_trace", str(folder), countdown=12).delay()
            service.start_worker()
            assert service.ready(), service.log()
            for _ in range(2):
                time.sleep(2)
                server.restart()
            assert eventually(lambda: all(map(notes, folders)), 90), service.log()
            assert eventually(lambda: service.waiting() == 0)
            assert service.dead() == 0
            assert service.workers[service.worker.name].poll() is None


def test_storm_loses_nothing(tmp_path_factory, tmp_path):
    folders = [tmp_path / str(number) for number in range(200)]
    with (
        running_service(tmp_path_factory.mktemp("logs"), max_receive_count=50) as service,
        broker.faulty(service) as (between, variables),
    ):
        with service.app.batching():
            for folder in folders:
                folder.mkdir()
                service.probe("overrun", str(folder), 0.4).delay()
        for label in ("one", "two"):
            service.start_worker(label=label, **variables)
        for _ in range(8):
            time.sleep(2)
            if random.random() < 0.5:
                between.cut()
            else:
                label = random.choice(["one", "two"])
                service.workers[label].send_signal(signal.SIGKILL)
                service.workers[label].wait()
                service.start_worker(label=label, **variables)

        def undone():
            return [folder.name for folder in folders if not any(note.suffix == ".ended" for note in notes(folder))]

        assert eventually(lambda: not undone(), 120), (undone(), service.log("one"))
        assert eventually(lambda: service.waiting() == 0, 60), service.log("one")
        assert service.dead() == 0
