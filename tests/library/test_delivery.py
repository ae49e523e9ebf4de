"""What a task process decides about an attempt, without a broker."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from types import SimpleNamespace

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError

from library import probes
from library.support import module

app = module("service").app()
consumer = module("consumer")
delivery = module("delivery")
errors = module("errors")
failures = module("failures")
pool = module("pool")
storing = module("storing")

QUEUE = app.contract.queues[0]


@app.task(name="tests.never", shared=False)
def never():
    """A task that must not run."""
    raise AssertionError("it ran")


@app.task(name="tests.brief", shared=False, ignore_result=True, message_group="g")
def brief(*given):
    """A task that ends at once."""


def attempt_at(task, following=None, **info):
    """Run a task as a task process does; return what it decided."""
    facts = {
        "routing_key": app.contract.celery_name(QUEUE),
        "receive_count": 1,
        "is_last": False,
        "hold_until": time.monotonic() + 60,
        "start_before": time.monotonic() + 30,
        "mark": 0,
        **info,
    }
    request = {"id": "1", "task": task.name, "properties": {}, "delivery_info": facts}
    app.set_current()
    return delivery.deliver(task.name, "1", request, ([], {}, following or {}), None, None)


def test_message_when_it_waited_too_long_in_its_worker_then_is_released_unstarted():
    verdict = attempt_at(never, start_before=time.monotonic() - 1)
    assert (verdict.action, verdict.outcome) == (delivery.Action.RELEASE, "interrupted")
    assert verdict.redelivery_in_seconds == 0


@pytest.mark.parametrize("field", ["callbacks", "chain"])
def test_signature_when_it_has_a_task_only_then_the_task_is_sent(sent, field):
    brief.__trace__ = delivery.build_tracer(brief.name, brief, app.loader, app=app, Info=delivery.Outcome)
    verdict = attempt_at(brief, {field: [{"task": brief.name, "args": None}]})
    assert verdict.outcome == "succeeded", verdict.text
    assert [message["task"] for message in sent] == [brief.name]


def test_request_id_when_a_task_sets_it_then_ends_with_the_task():
    request_id = module("log_fields").request_id
    seen = []

    def note():
        seen.append(request_id.get())
        request_id.set("of the task")

    task = app.task(name="tests.note", shared=False, ignore_result=True)(note)
    task.__trace__ = delivery.build_tracer(task.name, task, app.loader, app=app, Info=delivery.Outcome)
    for _ in range(2):
        assert attempt_at(task).outcome == "succeeded"
    assert seen == [None, None]
    assert request_id.get() is None


@pytest.mark.parametrize("kind", ["BadRepr", "Huge", "Wide", "Hidden", "KeyboardInterrupt"])
def test_error_when_it_is_huge_or_broken_then_is_stored_cut(kind):
    error = probes.ENDS[kind]()
    stored = failures.storable(error)
    assert isinstance(stored, Exception)
    assert len(json.dumps(stored.args)) < 1.1 * failures.MAX_ERROR_BYTES
    reason = failures.reason_of(error, 1)
    assert type(error).__name__ in reason["FailureException"]
    assert max(map(len, reason.values())) <= failures.MAX_REASON_CHARACTERS


@pytest.mark.parametrize("phase", pool.Phase)
def test_recording_when_its_process_dies_then_tells_nobody_twice(phase):
    ends = []
    info = {"routing_key": QUEUE.name, "receive_count": 1, "is_last": False}
    facts, body = {"id": "1", "delivery_info": info}, (b"", None, None)
    recording = consumer.Recording("x", "1", facts, body, "FAILURE", ValueError(), ends.append)
    info["mark"] = pool.new_mark(recording)
    pool.set_phase(info["mark"], phase)
    recording._lost(None)
    (verdict,) = ends
    stored = phase is pool.Phase.FAILED
    assert verdict.action is (delivery.Action.DEAD_LETTER if stored else delivery.Action.RELEASE)


@pytest.mark.parametrize(
    ("phase", "outcome"),
    [
        ("SUCCEEDED", "succeeded"),
        ("IGNORED", "ignored"),
        ("RETRY_REQUESTED", "retry_requested"),
        ("REVOKED", "revoked"),
        ("FAILED", "dead_lettered"),
    ],
)
def test_process_when_it_dies_after_all_is_done_then_the_message_is_settled_once(monkeypatch, caplog, phase, outcome):
    done = []
    message = SimpleNamespace(
        delivery_info={},
        ack_log_error=lambda *args: done.append("ack"),
        reject_log_error=lambda *args, requeue: done.append("requeue" if requeue else "dead-letter"),
    )
    request = consumer.Request.__new__(consumer.Request)
    request._message, request.accepted_at, request.name = message, None, "x"
    request._delivery_info = {"receive_count": 1}
    request._request_dict = {"id": "1", "delivery_info": request._delivery_info}
    request.mark = pool.new_mark(request)
    pool.set_phase(request.mark, pool.Phase[phase])
    monkeypatch.setattr(consumer.Request, "_context", delivery.Context(request._request_dict))
    monkeypatch.setattr(consumer.state, "task_ready", lambda *args: None)
    try:
        raise WorkerLostError("gone")
    except WorkerLostError:
        request.on_failure(ExceptionInfo())
    request.carry_out(delivery.Verdict(delivery.Action.RELEASE, "interrupted"))
    assert done == ["dead-letter" if phase == "FAILED" else "ack"]
    assert [record.outcome for record in caplog.records] == [outcome]


def test_process_when_it_dies_and_log_fields_fail_then_that_is_recorded(monkeypatch):
    request = consumer.Request.__new__(consumer.Request)
    request._already_cancelled = request._already_revoked = False
    request.mark = pool.new_mark(request)
    recorded = []
    monkeypatch.setattr(consumer.state, "task_ready", lambda *args: None)
    monkeypatch.setattr(consumer.Request, "record", lambda self, state, error: recorded.append(state))
    monkeypatch.setattr(consumer.Request, "fields", lambda self: {}["missing"])
    try:
        raise WorkerLostError("gone")
    except WorkerLostError:
        with contextlib.suppress(KeyError):
            request.on_failure(ExceptionInfo())
    assert recorded == ["FAILURE"]


def test_alarm_when_a_request_has_just_ended_then_is_not_raised():
    attempt = SimpleNamespace(request_in_progress=False)
    with storing._time_limit(attempt):
        attempt.request_in_progress = False
        signal.raise_signal(signal.SIGALRM)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("error", [probes.HopelessError("a", "b"), ValueError("x", 1), KeyError("k")])
def test_error_when_handed_over_then_is_the_same_as_stored_at_once(monkeypatch, error):
    backend = app.backend
    said = backend.encode_result(error, "FAILURE")
    stored = []
    monkeypatch.setattr(backend, "mark_as_failure", lambda task_id, error, *rest: stored.append(error))
    request = {"children": []}
    outcome = {"kind": "failed", "task_id": "1", "request": request, "store": True, "result": said, "traceback": None}
    storing._store(backend, outcome)
    assert backend.encode_result(stored[0], "FAILURE") == said


@pytest.mark.parametrize("keep_end", [False, True])
@pytest.mark.parametrize("text", ["short", "x" * 99, "x" * 1000, "\N{GRINNING FACE}" * 9, "\N{GRINNING FACE}" * 1000])
def test_text_when_cut_then_fits(text, keep_end):
    kept = failures.cut(text, 100, keep_end=keep_end)
    assert len(json.dumps(kept)) <= 100
    if len(json.dumps(text)) <= 100:
        assert kept == text
    else:
        assert len(json.dumps(kept)) >= 50


@pytest.mark.parametrize("room_bytes", [0, 30, 200, 3_000, 100_000])
def test_reason_when_there_is_little_room_then_is_cut_to_it(room_bytes):
    reason = {"FailureTraceback": "ü" * 4_000, "FailureException": "ü" * 1_000, "FailureAttempt": "3"}
    kept = failures.fitting(reason, room_bytes)
    assert sum(len(name) + len(value.encode()) for name, value in kept.items()) <= room_bytes
    assert ("FailureAttempt" in kept) is (room_bytes >= 30)
    assert (kept == reason) is (room_bytes == 100_000)


@pytest.mark.parametrize(
    ("state", "has_ended"),
    [("SUCCESS", True), ("REVOKED", True), ("FAILURE", True), ("RETRY", False), ("PENDING", False)],
)
def test_message_when_its_task_has_ended_already_then_nobody_is_told_again(monkeypatch, state, has_ended):
    monkeypatch.setattr(type(never.backend), "get_state", lambda self, task_id: state)
    monkeypatch.setattr(delivery, "_stores_errors", lambda *args: True)
    stored = []
    monkeypatch.setattr(type(never.backend), "mark_as_failure", lambda *args, **options: stored.append(args))
    facts = {"routing_key": app.contract.celery_name(QUEUE), "receive_count": 9, "is_last": True, "mark": 0}
    facts["hold_until"] = time.monotonic() + 60
    app.set_current()
    message, error = ([], {}, {}), errors.DeliveredTooOftenError("too often")
    request = {"id": "1", "delivery_info": facts, "properties": {}}
    verdict = delivery.record(never.name, "1", request, (message, None, None), "FAILURE", error)
    assert (verdict.action, "too often" in verdict.reason["FailureException"]) == (delivery.Action.DEAD_LETTER, True)
    assert bool(stored) is not has_ended
