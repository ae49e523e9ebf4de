"""Log lines: for machines and for people, and what they tell of a task."""

from __future__ import annotations

import json
import logging
import time

import pytest

import celery_aws
from library.support import eventually, module, notes

logs = module("logs")


@pytest.fixture
def logger(monkeypatch):
    """Let a test set up logging; put back what was."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers)
    level = root.level
    yield logging.getLogger("tests.logs")
    root.setLevel(level)


def test_lines_for_machines_are_json_also_with_a_traceback(logger, capfd):
    logs.set_up("INFO", plain=False)
    arguments = {"args": "secret"}
    fields = {"outcome": "retrying", "data": arguments}
    try:
        raise KeyError("what")
    except KeyError:
        logger.warning("no %s", "way", exc_info=True, extra=fields)
    line = capfd.readouterr().err
    said = json.loads(line)
    assert (said["level"], said["logger"], said["message"]) == ("WARNING", "tests.logs", "no way")
    assert (said["outcome"], "KeyError: 'what'" in said["exception"]) == ("retrying", True)
    assert "secret" not in line


def test_lines_for_people_are_plain(logger, capfd):
    logs.set_up("INFO", plain=True)
    logger.info("hello", extra={"task": "tasks.t", "task_id": "7"})
    assert capfd.readouterr().err.endswith(" INFO     hello  tasks.t[7]\n")


def test_request_id_is_that_of_the_request(logger, capfd):
    logs.set_up("INFO", plain=False)
    token = celery_aws.request_id.set("request-1")
    try:
        logger.info("hello")
    finally:
        celery_aws.request_id.reset(token)
    assert json.loads(capfd.readouterr().err)["request_id"] == "request-1"


def lines_of(service, task):
    """Return the log lines about a task."""
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("task") == f"library.probes.{task}"]


@pytest.mark.end_to_end
def test_line_of_a_task_tells_what_became_of_it(service, tmp_path):
    result = service.send("note_times", str(tmp_path), 1, 0, 1, group="group-1")

    def mine():
        return [line for line in lines_of(service, "note_times") if line.get("task_id") == result.id]

    assert eventually(lambda: any(line["outcome"] == "succeeded" for line in mine())), service.log()
    failed, done = mine()
    assert (failed["outcome"], failed["attempt"], failed["level"]) == ("retrying", 1, "WARNING")
    assert failed["redelivery_in_seconds"] in (0, 1)
    assert "not yet" in failed["exception"]
    assert (done["queue"], done["group"], done["level"]) == (
        service.contract.celery_name(service.queue),
        "group-1",
        "INFO",
    )
    assert done["attempt"] == 2
    assert 0 <= done["duration_seconds"] < 5
    # From sending, also of the second attempt; RabbitMQ keeps whole seconds.
    assert 0 <= failed["age_seconds"] <= done["age_seconds"] < 60
    assert str(tmp_path) not in json.dumps(done)  # Arguments may be anybody's address.


@pytest.mark.end_to_end
def test_age_when_a_task_has_a_countdown_then_begins_at_its_end(service, tmp_path):
    before = time.time()
    result = service.send("leave_trace", str(tmp_path), countdown=3)
    after = time.time()

    def ages():
        return [line["age_seconds"] for line in lines_of(service, "leave_trace") if line["task_id"] == result.id]

    assert eventually(ages), service.log()
    (trace,) = notes(tmp_path)
    began_at = trace.stat().st_mtime
    assert began_at - (after + 3) - 0.5 < ages()[0] < began_at - (before + 3) + 0.1


def test_age_when_clocks_differ_or_no_time_is_known_then_is_valid():
    age_seconds = module("delivery").age_seconds
    assert age_seconds({"due_at": 100.5}, 102) == 1.5
    assert age_seconds({"due_at": 103}, 102) == 0
    assert age_seconds({"due_at": None}, 102) is None
    assert age_seconds({}, 102) is None


@pytest.mark.end_to_end
def test_request_id_goes_from_sender_to_task_to_the_tasks_it_sends(service, tmp_path):
    token = celery_aws.request_id.set(f"request-of-{tmp_path.name}")
    try:
        service.send("send_on", str(tmp_path))
    finally:
        celery_aws.request_id.reset(token)

    def told():
        said = [line for task in ("send_on", "leave_trace") for line in lines_of(service, task)]
        return [line for line in said if line.get("request_id") == f"request-of-{tmp_path.name}"]

    assert eventually(
        lambda: {line["task"] for line in told()} == {"library.probes.send_on", "library.probes.leave_trace"}
    )
    assert "sending on" in [line["message"] for line in told()]  # The task's own line as well.
