"""Exchanges and queues, the pauses of messages, and who is let in."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time

import billiard
import pytest
from kombu.transport.native_delayed_delivery import (
    MAX_LEVEL,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)

from celery_aws.dev.brokers.rabbitmq import PASSWORD
from library.rabbitmq import tls
from library.support import CONTRACT, PATH, eventually, module, notes, running_service

settings = module("settings")
contract = module("service").contract()

QUEUE = contract.queues[0]


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("amqps://broker.example.com:5671", True),
        ("amqp://127.0.0.1:5672/vhost", True),
        ("amqp://broker.example.com:5672", False),
        ("amqps://me:secret@broker.example.com", False),
        ("https://broker.example.com", False),
        ("amqps://", False),
    ],
)
def test_url_is_encrypted_and_holds_no_password(monkeypatch, url, fits):
    monkeypatch.setenv("BROKER_URL", url)
    if fits:
        assert settings.read_settings(module("brokers.rabbitmq").Variables)[0].broker_url == url
        return
    with pytest.raises(module("errors").SettingsError) as error:
        settings.read_settings(module("brokers.rabbitmq").Variables)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "trusted", "said"),
    [
        ("localhost", True, "connected"),
        ("localhost", False, "certificate verify failed"),
        ("other.example", True, "Hostname mismatch"),
    ],
)
def test_certificate_and_host_name_are_verified(tmp_path, name, trusted, said):
    code = (
        f"from {CONTRACT['package']}.celery import app\n"
        "try: app.connection_for_write().connect()\n"
        "except Exception as error: print(error)\n"
    )
    with tls.server(tmp_path, name) as server:
        url = f"amqps://localhost:{server.port}"
        environment = {**os.environ, "BROKER_URL": url, **PATH}
        if trusted:
            environment["SSL_CERT_FILE"] = str(server.certificate)
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert set(server.heard) == ({b"AMQP\x00\x00\x09\x01"} if said == "connected" else set())
    assert said == "connected" or said in run.stdout
    assert PASSWORD not in run.stdout + run.stderr


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service without a worker."""
    with running_service(tmp_path_factory.mktemp("logs")) as running:
        yield running


def work(service):
    """See that it has a worker."""
    if not service.workers:
        service.start_worker()
    assert service.ready(), service.log()


@pytest.mark.end_to_end
def test_sender_that_comes_before_any_worker_finds_all_it_needs(service, tmp_path):
    service.send("leave_trace", str(tmp_path))
    service.send("leave_trace", str(tmp_path), countdown=0.5)
    work(service)
    assert eventually(lambda: len(notes(tmp_path)) == 2), service.log()
    assert eventually(lambda: service.waiting() == 0)


@pytest.mark.end_to_end
@pytest.mark.parametrize("seconds", [1, 2.5, 4])
def test_delayed_task_is_never_early(service, tmp_path, seconds):
    work(service)
    began = time.monotonic_ns()
    service.send("leave_trace", str(tmp_path), countdown=seconds)
    assert eventually(lambda: notes(tmp_path)), service.log()
    (trace,) = notes(tmp_path)
    assert seconds * 1e9 <= int(trace.name) - began <= (seconds + 4) * 1e9


@pytest.mark.end_to_end
def test_queue_keeps_its_numbers_when_the_contract_changes_and_the_log_says_so(service, caplog):
    with service.app.connection_for_write() as connection:
        queues = (
            dataclasses.replace(queue, max_receive_count=queue.max_receive_count + 1)
            for queue in service.contract.queues
        )
        changed = dataclasses.replace(service.contract, queues=tuple(queues))
        module("brokers.rabbitmq.topology").declare(connection.connection, changed)
        assert f"queue {QUEUE.name} keeps its old arguments" in caplog.text
        assert "x-delivery-limit" in caplog.text
        assert connection.connection.connected


@pytest.mark.end_to_end
def test_delay_queues_are_as_many_as_the_longest_delay_needs(service):
    """And in a virtual host where Celery has declared all of its own, nothing is declared twice or otherwise."""
    topology = module("brokers.rabbitmq.topology")
    levels = topology.delay_levels(service.contract)
    assert 2**levels > max(queue.max_countdown_seconds for queue in service.contract.queues)

    def missing():
        with service.app.connection_for_write() as connection:
            return [
                level for level in range(MAX_LEVEL + 1) if not topology.exists(connection.connection, level_name(level))
            ]

    work(service)
    assert missing() == list(range(levels, MAX_LEVEL + 1))
    queues = (dataclasses.replace(queue, max_countdown_seconds=2**levels) for queue in service.contract.queues)
    longer = dataclasses.replace(service.contract, queues=tuple(queues))
    with service.app.connection_for_write() as connection:
        topology.declare(connection.connection, longer)
        assert missing() == list(range(levels + 1, MAX_LEVEL + 1))
        declare_native_delayed_delivery_exchanges_and_queues(connection, "quorum")
        topology.declare(connection.connection, longer)
    assert missing() == []


@pytest.mark.end_to_end
def test_delayed_task_after_levels_were_added_then_runs_once(service, tmp_path):
    """There is more than one way to its queue then."""
    work(service)
    service.send("leave_trace", str(tmp_path), countdown=3)
    assert eventually(lambda: notes(tmp_path)), service.log()
    assert eventually(lambda: service.waiting() == 0)
    assert len(notes(tmp_path)) == 1


@pytest.mark.end_to_end
def test_forked_process_leaves_its_parents_connection_alone(service):
    with service.app.producer_pool.acquire(block=True) as producer:
        channel = producer.channel
        connection = producer.connection.connection
        child = billiard.Process(target=int)
        child.start()
        child.join()
        assert child.exitcode == 0
        assert channel.queue_declare(service.queue.name, passive=True).queue == service.queue.name
        assert producer.connection.connection is connection


@pytest.mark.end_to_end
def test_remote_control_reaches_the_worker(service):
    work(service)
    with service.reached():
        inspect = service.app.control.inspect(timeout=5, limit=1)
        (queues,) = inspect.active_queues().values()
        (stats,) = inspect.stats().values()
        (conf,) = inspect.conf().values()
    assert [queue["name"] for queue in queues] == [*service.worker.queues]
    assert stats["pool"]["max-concurrency"] == service.worker.concurrency
    # Whoever asks needs no more than to be let in, and is told nothing of the service's own settings.
    assert service.environment["BROKER_PASSWORD"] not in f"{stats}{conf}"
    assert "SecretStr" not in f"{stats}{conf}"


@pytest.mark.end_to_end
def test_task_can_be_revoked_while_it_runs(service, tmp_path):
    work(service)
    result = service.send("overrun", str(tmp_path), 60)
    assert eventually(lambda: notes(tmp_path)), service.log()
    with service.reached():
        service.app.control.revoke(result.id, terminate=True)
    assert eventually(lambda: service.waiting() == 0), service.log()
    assert [note.suffix for note in notes(tmp_path)] == [".began"]
    assert service.dead() == 0
