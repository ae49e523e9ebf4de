"""The beat, which sends what the contract's schedules say where EventBridge Scheduler does not."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from library.beating import beating, schedule_each_minute, sent_by
from library.support import PROJECT, contract, eventually, module, notes, running_service

beat = module("beat")
cli = module("cli")
errors = module("errors")
health = module("health")
service = module("service")
schedules = module("schedules")
Schedule = module("contract").Schedule

START = datetime(2027, 1, 1, 12, 0, 30, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)


class Clock:
    """A clock that tests set."""

    def __init__(self):
        self.time = START

    def __call__(self):
        return self.time


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """Put a clock in the place of the beat's."""
    monkeypatch.setenv("LIVENESS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(beat, "now", Clock())
    return beat.now


@pytest.fixture
def fired(monkeypatch):
    """Record what is sent; `fired.error` is raised instead if it is set."""
    record = SimpleNamespace(ids=[], error=None)

    def send(app, schedule, due):
        if record.error:
            raise record.error
        record.ids.append(schedules.task_id(schedule, due))

    monkeypatch.setattr(beat, "send", send)
    return record


def each(minutes, **fields):
    return Schedule(name=f"each-{minutes}", task="a.rest", rate_minutes=minutes, **fields)


def once(at):
    return Schedule(name="once", task="a.rest", at=at)


def scheduler_of(monkeypatch, *stated):
    """Return the scheduler of a beat that begins now."""
    app = service.app()
    monkeypatch.setattr(app, "contract", replace(contract, schedules=stated))
    return beat.ContractScheduler(app, schedule_filename="unused")


def errors_of(caplog):
    return [(record.task_id, record.getMessage()) for record in caplog.records if record.levelname == "ERROR"]


def test_tasks_are_sent_when_due_and_once(monkeypatch, clock, fired):
    scheduler = scheduler_of(monkeypatch, each(1), each(2), once("2027-01-01T12:01:00"), each(3, enabled=False))
    for _ in range(2000):
        clock.time += timedelta(seconds=0.1)
        scheduler.tick()
    assert fired.ids == [
        "each-1-2027-01-01T12:01:00Z",
        "once-2027-01-01T12:01:00Z",
        "each-1-2027-01-01T12:02:00Z",
        "each-2-2027-01-01T12:02:00Z",
        "each-1-2027-01-01T12:03:00Z",
    ]


def test_next_tick_is_when_a_task_is_due_and_soon_enough_to_be_alive(monkeypatch, clock, fired):
    scheduler = scheduler_of(monkeypatch, each(1))
    assert scheduler.tick() == beat.BEAT_SECONDS < health.STALE_AFTER_SECONDS
    clock.time += timedelta(seconds=29.5)
    assert scheduler.tick() == 0.5
    clock.time += timedelta(seconds=0.5)
    assert scheduler.tick() == beat.BEAT_SECONDS
    assert scheduler_of(monkeypatch, each(1, enabled=False)).tick() == beat.BEAT_SECONDS


def test_what_was_due_before_the_beat_started_is_not_sent(monkeypatch, clock, fired):
    scheduler_of(monkeypatch, each(1)).tick()
    clock.time += 10 * MINUTE
    scheduler = scheduler_of(monkeypatch, each(1), once("2027-01-01T12:05:00"))
    scheduler.tick()
    assert fired.ids == []
    clock.time += MINUTE
    scheduler.tick()
    assert fired.ids == ["each-1-2027-01-01T12:11:00Z"]


def test_task_that_cannot_be_sent_is_tried_again_until_it_can(monkeypatch, clock, fired, caplog):
    scheduler = scheduler_of(monkeypatch, each(5))
    fired.error = ConnectionRefusedError("no broker")
    for _ in range(60):
        clock.time += timedelta(seconds=9)
        assert scheduler.tick() <= beat.BEAT_SECONDS
    assert errors_of(caplog)[1:] == []
    fired.error = None
    scheduler.tick()
    scheduler.tick()
    assert fired.ids == ["each-5-2027-01-01T12:05:00Z"]
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.task_id for record in warned] == fired.ids
    assert "no broker" in warned[0].getMessage()


def test_task_that_cannot_be_sent_until_the_next_is_due_is_logged(monkeypatch, clock, fired, caplog):
    scheduler = scheduler_of(monkeypatch, each(1), once("2027-01-01T12:00:50"))
    fired.error = ConnectionRefusedError("no broker")
    for _ in range(16):
        clock.time += timedelta(seconds=6)
        scheduler.tick()
    (lost,) = errors_of(caplog)
    assert lost[0] == "each-1-2027-01-01T12:01:00Z"
    assert "no broker" in lost[1]
    fired.error = None
    scheduler.tick()
    # The one that is due once has no next time, so it is never too late.
    assert fired.ids == ["each-1-2027-01-01T12:02:00Z", "once-2027-01-01T12:00:50Z"]


def test_task_that_is_refused_is_logged_and_not_tried_again(monkeypatch, clock, fired, caplog):
    scheduler = scheduler_of(monkeypatch, each(1))
    fired.error = errors.MessageTooLargeError("too large")
    clock.time += MINUTE
    scheduler.tick()
    scheduler.tick()
    ((task_id, text),) = errors_of(caplog)
    assert (task_id, "too large" in text) == ("each-1-2027-01-01T12:01:00Z", True)


def test_task_that_cannot_be_sent_when_the_beat_stops_is_logged_once(monkeypatch, clock, fired, caplog):
    scheduler = scheduler_of(monkeypatch, each(1), each(2))
    fired.error = ConnectionRefusedError("no broker")
    clock.time += MINUTE
    scheduler.tick()
    scheduler.close()
    scheduler.close()
    assert [task_id for task_id, _ in errors_of(caplog)] == ["each-1-2027-01-01T12:01:00Z"]


def test_task_that_is_being_sent_when_the_beat_stops_is_logged(monkeypatch, clock, fired, caplog):
    scheduler = scheduler_of(monkeypatch, each(1))
    fired.error = SystemExit()
    clock.time += MINUTE
    with pytest.raises(SystemExit):
        scheduler.tick()
    scheduler.close()
    assert [task_id for task_id, _ in errors_of(caplog)] == ["each-1-2027-01-01T12:01:00Z"]


def test_clock_that_jumps_then_nothing_is_sent_twice(monkeypatch, clock, fired, caplog):
    scheduler = scheduler_of(monkeypatch, each(1))
    clock.time += 10 * MINUTE
    scheduler.tick()
    assert fired.ids == ["each-1-2027-01-01T12:10:00Z"]
    ((task_id, text),) = errors_of(caplog)
    assert (task_id, "nor 8 after it" in text) == ("each-1-2027-01-01T12:01:00Z", True)
    clock.time -= 5 * MINUTE
    for _ in range(60):
        scheduler.tick()
        clock.time += timedelta(seconds=6)
    assert fired.ids == ["each-1-2027-01-01T12:10:00Z", "each-1-2027-01-01T12:11:00Z"]
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_beat_is_alive_while_it_ticks(monkeypatch, clock, fired):
    scheduler = scheduler_of(monkeypatch, each(1))
    with pytest.raises(health.NotAliveError, match="the beat"):
        health.check(contract, health.BEAT)
    fired.error = ConnectionRefusedError("no broker")
    clock.time += MINUTE
    scheduler.tick()
    assert health.check(contract, health.BEAT) < 2


def test_names_of_the_beat_are_those_of_no_worker():
    problems = module("contract").problems
    stated = json.loads((PROJECT / "contract.json").read_text(encoding="utf-8"))
    stated["queues"].append({"name": "beat"})
    assert problems(stated) == []
    stated["queues"][-1]["name"] = health.BEAT
    assert [problem.field for problem in problems(stated)] == ["name"]
    worker = health.liveness_file(contract, "beat")
    assert health.liveness_file(contract, health.BEAT) != worker


def test_deployment_waits_for_the_beat_where_one_runs():
    workers = tuple(worker.name for worker in contract.workers)
    assert contract.rollout_names == workers
    beat = (health.BEAT,) if contract.broker == "rabbitmq" else ()
    assert replace(contract, schedules=(each(1, enabled=False),)).rollout_names == (*workers, *beat)


def test_command_without_schedules_then_says_so():
    ran = CliRunner().invoke(cli.main, ["beat"])
    assert (ran.exit_code, "schedules" in ran.output) == (2, True)


def test_command_with_entries_of_celery_itself_then_names_them(monkeypatch):
    monkeypatch.setattr(service, "contract", lambda: replace(contract, schedules=(each(1),)))
    monkeypatch.setitem(service.app().conf.beat_schedule, "nightly", {})
    ran = CliRunner().invoke(cli.main, ["beat"])
    assert (ran.exit_code, "nightly" in ran.output) == (2, True)


def test_schedules_when_listed_in_development_then_aws_is_not_asked(monkeypatch):
    schedules = (each(1, queue=contract.queues[0].name),)
    monkeypatch.setattr(service, "contract", lambda: replace(contract, schedules=schedules))
    ran = CliRunner().invoke(cli.main, ["schedules", "list", "--environment", "development"])
    assert ran.exit_code == 0, ran.output
    assert "AT AWS" not in ran.stdout
    assert "make dev" in ran.stderr


def done_by(running):
    """Return the ids of the tasks that the worker has done, from its log."""
    lines = [json.loads(line) for line in running.log().splitlines() if '"outcome": "succeeded"' in line]
    return [line["task_id"] for line in lines]


@pytest.mark.end_to_end
def test_beat_when_killed_and_started_again_then_sends_nothing_twice_nor_what_it_missed(tmp_path_factory, tmp_path):
    with running_service(tmp_path_factory.mktemp("logs")) as running:
        schedule_each_minute(running, tmp_path)
        running.start_worker()
        first, fourth = START + timedelta(seconds=30), START + timedelta(seconds=210)
        with beating(running, first) as (process, log):
            assert eventually(lambda: sent_by(log)), log.read_text()
            process.kill()
            process.wait()
        with beating(running, fourth) as (process, again):
            assert eventually(lambda: sent_by(again)), again.read_text()
            variables = {"LIVENESS_DIRECTORY": str(running.logs)}
            assert CliRunner().invoke(cli.main, ["health", health.BEAT], env=variables).exit_code == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
        ids = ["each-minute-2027-01-01T12:01:00Z", "each-minute-2027-01-01T12:04:00Z"]
        assert sent_by(log) + sent_by(again) == ids
        assert eventually(lambda: len(done_by(running)) == 2), running.log()
        assert done_by(running) == ids
        assert len(notes(tmp_path)) == 2
