"""What containers and systemd ask: is the worker alive?"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from celery.worker import state

from celery_aws.contract import Schedule
from library.support import CONTRACT, broker, eventually, module, running_service

contract = module("service").contract()
health = module("health")
liveness = module("liveness")

QUEUE = contract.queues[0]
WORKER = contract.worker_of(QUEUE)

DUE_SECONDS = 60
"""When the answer of any broker is overdue."""


@pytest.fixture
def channel():
    """What a worker's channel tells of itself."""
    return SimpleNamespace(awaits_answers=True, answer_due_seconds=40, last_answer=time.monotonic())


@pytest.fixture
def beats(channel, monkeypatch, tmp_path):
    """The beats of a worker with that channel, and no task."""
    monkeypatch.setattr(state, "active_requests", [])
    monkeypatch.setenv("LIVENESS_DIRECTORY", str(tmp_path))
    return liveness.Beats(SimpleNamespace(task_consumer=SimpleNamespace(channel=channel)), contract, WORKER)


def held_since(seconds):
    """Return a task that a process began with so long ago, whose message stays invisible to others for some time."""
    began = time.monotonic() - seconds
    limits = (QUEUE.hard_limit_seconds, QUEUE.soft_limit_seconds)
    return SimpleNamespace(accepted_at=began, time_limits=limits, hold_until=began + QUEUE.hold_seconds)


def test_alive_while_the_broker_answers(beats, channel):
    assert beats.is_alive()
    beats.began = time.monotonic() - 3600
    channel.last_answer = time.monotonic() - channel.answer_due_seconds + 1
    assert beats.is_alive()
    channel.last_answer = time.monotonic() - channel.answer_due_seconds - 1
    assert not beats.is_alive()


def test_a_worker_that_has_just_begun_has_time_for_its_first_answer(beats, channel):
    channel.last_answer = None
    assert beats.is_alive()
    beats.began = time.monotonic() - 3600
    assert not beats.is_alive()


def test_alive_without_answers_while_every_task_is_within_its_time_limit(beats, channel):
    channel.last_answer = time.monotonic() - 3600
    beats.began = channel.last_answer
    channel.awaits_answers = False
    # Its own code ends at its hard limit; storing its result may take as long as its message is invisible.
    state.active_requests.append(held_since(QUEUE.hold_seconds))
    assert beats.is_alive()
    state.active_requests.append(held_since(QUEUE.hold_seconds + 61))
    assert not beats.is_alive()


def test_worker_when_the_wall_clock_steps_then_is_as_alive_as_before(beats, channel, monkeypatch):
    channel.awaits_answers = False
    state.active_requests.append(held_since(1))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    assert beats.is_alive()


def test_liveness_file_when_it_cannot_be_written_then_is_told_once(beats, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("LIVENESS_DIRECTORY", str(tmp_path / "missing"))
    for _ in range(3):
        beats.beat()
    (told,) = caplog.records
    assert (told.levelname, "LIVENESS_DIRECTORY" in told.getMessage()) == ("ERROR", True)
    assert str(tmp_path / "missing") in told.getMessage()


def test_check_looks_at_the_age_of_the_file(beats):
    with pytest.raises(health.NotAliveError, match=r"is missing"):
        health.check(contract, WORKER.name)
    beats.beat()
    assert health.check(contract, WORKER.name) < 2
    path = health.liveness_file(contract, WORKER.name)
    os.utime(path, (time.time() - 16, time.time() - 16))
    with pytest.raises(health.NotAliveError, match="was last alive 16 s ago"):
        health.check(contract, WORKER.name)
    beats.is_alive = lambda: False
    beats.beat()
    with pytest.raises(health.NotAliveError):
        health.check(contract, WORKER.name)


@pytest.mark.parametrize("has_schedules", [True, False])
def test_check_when_there_is_no_such_worker_then_lists_the_beat_if_any(has_schedules):
    schedule = Schedule(name="nightly", task="x.y", queue=contract.queues[0].name, rate_minutes=1)
    stated = replace(contract, schedules=(schedule,) if has_schedules else ())
    with pytest.raises(KeyError, match="workers: ") as unknown:
        health.check(stated, "beat")
    assert (health.BEAT in str(unknown.value)) is has_schedules


def test_systemd_is_told_as_well(beats, monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        beats.beat()
        assert systemd.recv(100) == b"READY=1\nWATCHDOG=1"


@pytest.mark.end_to_end
@pytest.mark.slow
def test_command_says_alive_until_the_broker_answers_no_more(tmp_path_factory):
    with (
        running_service(tmp_path_factory.mktemp("logs")) as service,
        broker.faulty(service) as (between, variables),
    ):
        service.environment["LIVENESS_DIRECTORY"] = str(service.logs)
        # It starts no Celery, and needs none of the worker's settings.
        code = (
            "import sys\n"
            f"from {CONTRACT['package']}.__main__ import main\n"
            f"sys.argv[1:] = ['health', '{WORKER.name}']\n"
            "try: main()\n"
            "finally: assert not {'celery', 'boto3'} & sys.modules.keys()"
        )

        def asked():
            return service.python("-c", code)

        assert (asked().returncode, "is missing" in asked().stderr) == (1, True)
        service.start_worker(**variables)
        assert service.ready()
        assert eventually(lambda: asked().returncode == 0, 10), asked().stderr
        requests = sum(between.seen.values())
        assert requests <= 30
        between.fault = "hang"
        assert eventually(lambda: asked().returncode == 1, DUE_SECONDS + health.STALE_AFTER_SECONDS + 10), service.log()
        assert "was last alive" in asked().stderr
        between.fault = ""
        assert eventually(lambda: asked().returncode == 0, 20), service.log()
