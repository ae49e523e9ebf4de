"""Which tasks a worker protects from ECS, for how long, and how often it asks."""

from __future__ import annotations

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from library.support import contract, module

app = module("service").app()
protection = module("compute.ecs")

AGE_SECONDS = 100
LIMIT_SECONDS = 300


@pytest.fixture
def agent():
    """Run a fake ECS agent; yield its URL, the requests it received and the answers it is to give."""
    asked, answers = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            body = json.dumps(answers.pop() if answers else {"protection": {}, "failure": None}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api/task", asked, answers
    server.shutdown()


@pytest.fixture
def guard(agent):
    return protection.Guard(agent[0], AGE_SECONDS)


def task(began, name="a", ends_by=None):
    return protection.Running(name, began, began + LIMIT_SECONDS if ends_by is None else ends_by)


def calls_in(seconds, guard, asked, running):
    """Update a guard at each check; `running(now)` returns the running tasks. Return the number of requests."""
    for now in range(0, seconds, protection.CHECK_EVERY_SECONDS):
        guard.update(frozenset(running(now)), now)
    return len(asked)


def test_app_when_on_ecs_then_has_the_protection_step():
    assert app.steps["consumer"] >= set(protection.STEPS)


def test_task_when_it_outlasts_the_stop_timeout_then_is_protected(agent, guard):
    _, asked, _ = agent
    running = frozenset({task(0)})
    guard.update(running, AGE_SECONDS - 1)
    assert asked == []
    guard.update(running, AGE_SECONDS)
    guard.update(running, AGE_SECONDS + 5)
    path = "/api/task/task-protection/v1/state"
    assert asked == [(path, {"ProtectionEnabled": True, "ExpiresInMinutes": 4})]
    guard.update(frozenset(), AGE_SECONDS + 10)
    guard.update(frozenset(), AGE_SECONDS + 15)
    assert asked[1:] == [(path, {"ProtectionEnabled": False})]


def test_protection_when_other_tasks_run_then_ends_with_its_own(agent, guard):
    _, asked, _ = agent
    guard.update(frozenset({task(0), task(50, "b")}), AGE_SECONDS)
    guard.update(frozenset({task(50, "b")}), AGE_SECONDS + 60)
    assert [body["ProtectionEnabled"] for _, body in asked] == [True, False]
    guard.update(frozenset({task(50, "b")}), 2 * AGE_SECONDS + 55)
    assert len(asked) == 2
    guard.update(frozenset({task(50, "b")}), 2 * AGE_SECONDS + 60)
    assert len(asked) == 3


def test_protection_when_a_task_hangs_then_ends_with_its_limit(agent, guard):
    _, asked, _ = agent
    stuck = frozenset({task(0)})
    guard.update(stuck, AGE_SECONDS)
    guard.update(stuck, LIMIT_SECONDS - 1)
    assert len(asked) == 1
    guard.update(stuck, LIMIT_SECONDS)
    assert [body["ProtectionEnabled"] for _, body in asked] == [True, False]


@pytest.mark.parametrize(
    ("task_seconds", "every_seconds", "most"), [(2, 10, 0), (99, 100, 0), (110, 110, 66), (290, 290, 26)]
)
def test_requests_when_a_worker_flaps_then_are_few(agent, guard, task_seconds, every_seconds, most):
    def running(now):
        began = now - now % every_seconds
        return [task(began)] if now - began < task_seconds else []

    assert calls_in(3600, guard, agent[1], running) <= most


def test_worker_when_always_busy_then_is_unprotected_regularly(agent, guard):
    """ECS can replace it, though one of its tasks has always run long enough to be protected."""
    _, asked, _ = agent

    def running(now):
        return [task(now - now % 200, "a"), task(now - (now + 100) % 200, "b")]

    unprotected = []
    for now in range(0, 3600, protection.CHECK_EVERY_SECONDS):
        guard.update(frozenset(running(now)), now)
        if not guard.protected:
            unprotected.append(now)
    waits = [later - now for now, later in itertools.pairwise(unprotected)]
    assert max(waits) <= LIMIT_SECONDS
    assert len(asked) < 60


@pytest.mark.parametrize("reason", ["DEPLOYMENT_BLOCKED", "TASK_NOT_VALID"])
def test_protection_when_refused_then_is_asked_for_later(agent, guard, caplog, reason):
    _, asked, answers = agent
    refusal = {"Arn": "arn:aws:ecs:eu-west-1:123456789012:task/a", "Reason": reason, "Detail": None}
    answers.append({"requestID": "1", "failure": refusal})
    running = frozenset({task(0)})
    guard.update(running, AGE_SECONDS)
    assert not guard.protected
    guard.update(running, AGE_SECONDS + protection.RETRY_SECONDS - 1)
    assert len(asked) == 1
    guard.update(running, AGE_SECONDS + protection.RETRY_SECONDS)
    assert len(asked) == 2
    assert guard.protected
    # A refusal during a deployment is normal and needs no action.
    assert [record.levelname for record in caplog.records if "protection" in record.message] == (
        [] if reason == "DEPLOYMENT_BLOCKED" else ["WARNING"]
    )


def test_end_of_protection_when_refused_then_is_asked_for_later(agent, guard):
    _, asked, answers = agent
    guard.update(frozenset({task(0)}), AGE_SECONDS)
    answers.append({"error": "throttled"})
    guard.update(frozenset(), 200)
    guard.update(frozenset(), 200 + protection.RETRY_SECONDS)
    assert [body["ProtectionEnabled"] for _, body in asked] == [True, False, False]
    assert not guard.protected


def test_agent_when_unreachable_then_stops_nothing(caplog):
    guard = protection.Guard("http://127.0.0.1:9", AGE_SECONDS)
    guard.update(frozenset({task(0)}), AGE_SECONDS)
    assert "refused" in caplog.text


def test_running_tasks_when_listed_then_have_been_started():
    requests = [
        SimpleNamespace(id="a", accepted_at=5.0, time_limits=(300, 240)),
        SimpleNamespace(id="b", accepted_at=None, time_limits=(300, 240)),
        SimpleNamespace(id="stores an outcome"),
    ]
    assert protection.running_tasks(requests) == {protection.Running("a", 5.0, 365.0)}


def step(monkeypatch, **values):
    """Start the step in a worker with these limits, and return it with the timer of its event loop."""
    monkeypatch.setenv("ECS_AGENT_URI", "http://127.0.0.1:9")
    timer = SimpleNamespace(calls=[])
    timer.call_repeatedly = lambda *call: timer.calls.append(call)
    served = SimpleNamespace(hard_limit_seconds=values["hard_limit_seconds"])
    app = SimpleNamespace(
        contract=SimpleNamespace(soft_shutdown_seconds=values["soft_shutdown_seconds"]), queues_consumed=[served]
    )
    consumer = SimpleNamespace(app=app, timer=timer)
    started = protection.Protection(consumer)
    started.start(consumer)
    return started, consumer


def test_worker_when_all_tasks_are_short_then_asks_nothing(monkeypatch):
    started, consumer = step(monkeypatch, hard_limit_seconds=100, soft_shutdown_seconds=100)
    assert started.guard is None
    assert consumer.timer.calls == []


def test_worker_when_it_reconnects_then_has_one_guard(monkeypatch):
    started, consumer = step(monkeypatch, hard_limit_seconds=300, soft_shutdown_seconds=100)
    guard = started.guard
    assert guard.age_seconds == 100
    started.start(consumer)
    assert started.guard is guard
    assert sum(thread.name == "protection" for thread in threading.enumerate()) == 1
    assert len(consumer.timer.calls) == 2


def test_deployment_seconds_when_derived_then_cover_task_and_stop():
    longest = max(queue.hard_limit_seconds for queue in contract.queues)
    assert contract.deployment_seconds > longest + contract.stop_timeout_seconds
