"""Paused queues on RabbitMQ: for workers that run, that start later, and that lose their connection."""

from __future__ import annotations

import json

import pytest

from library.support import CONTRACT, broker, eventually, notes

pytestmark = pytest.mark.end_to_end


def command(service, *arguments):
    ran = service.python("-m", CONTRACT["package"], "queues", *arguments)
    assert not ran.stderr, ran.stderr
    return ran.stdout


def shown(service):
    return json.loads(command(service, "list", "--json"))[0]


def test_queue_when_paused_then_no_worker_takes_its_messages(quiet, tmp_path):
    name = quiet.queue.name
    worker = quiet.start_worker(label="now", extra=["--hostname=another@here"])
    assert quiet.ready("now"), quiet.log("now")
    assert eventually(lambda: shown(quiet)["workers"] == 1)
    assert "confirmed by another@here" in command(quiet, "pause", name)
    assert eventually(lambda: shown(quiet)["workers"] == 0), quiet.log("now")
    assert shown(quiet)["paused"]["by"]
    worker.kill()
    quiet.workers.pop("now")
    quiet.start_worker(label="later")
    assert eventually(lambda: "is paused" in quiet.log("later")), quiet.log("later")
    sent = quiet.send("stay", str(tmp_path), 0)
    assert not eventually(lambda: notes(tmp_path), 2)
    command(quiet, "resume", name)
    assert eventually(lambda: f'"{sent.id}"' in quiet.log("later")), quiet.log("later")
    assert len(notes(tmp_path)) == 1
    assert shown(quiet)["paused"] is None
    quiet.stop_workers()
    quiet.workers.clear()


def test_queue_when_paused_while_a_worker_is_cut_off_then_is_left_out_when_it_is_back(quiet, tmp_path):
    with broker.faulty(quiet) as (between, variables):
        quiet.start_worker(label="far", **variables)
        assert quiet.ready("far"), quiet.log("far")
        between.fault = "refused"
        between.cut()
        command(quiet, "pause", quiet.queue.name)
        quiet.send("stay", str(tmp_path), 0)
        between.fault = ""
        assert eventually(lambda: "is paused" in quiet.log("far")), quiet.log("far")
        assert not eventually(lambda: notes(tmp_path), 2)
        between.fault = "refused"
        between.cut()
        command(quiet, "resume", quiet.queue.name)
        between.fault = ""
        assert eventually(lambda: notes(tmp_path)), quiet.log("far")
        quiet.stop_workers()
        quiet.workers.clear()
