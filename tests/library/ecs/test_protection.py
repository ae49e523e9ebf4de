"""A busy worker asks ECS not to be stopped, and an idle one lets go."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from library.support import module

app = module("service").app()
protection = module("compute.ecs")


@pytest.fixture
def agent():
    """Run what ECS runs beside a container, and yield its URL with what it was asked and is to answer."""
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


def test_workers_protect_themselves():
    assert app.steps["consumer"] >= set(protection.STEPS)


def test_busy_worker_is_protected_once_and_idle_one_lets_go(agent):
    url, asked, _ = agent
    guard = protection.Guard(url, longest_seconds=360)
    guard.update(busy=False)
    guard.update(busy=True)
    guard.update(busy=True)
    guard.update(busy=False)
    guard.update(busy=False)
    path = "/api/task/task-protection/v1/state"
    assert asked == [
        (path, {"ProtectionEnabled": True, "ExpiresInMinutes": 12}),
        (path, {"ProtectionEnabled": False}),
    ]


def test_protection_is_renewed_long_before_it_ends(agent):
    url, asked, _ = agent
    guard = protection.Guard(url, longest_seconds=60)
    for _ in range(120 // protection.CHECK_EVERY_SECONDS):
        guard.update(busy=True)
    assert len(asked) == 2


def test_refused_protection_is_asked_for_again_and_stops_nothing(agent, caplog):
    url, asked, answers = agent
    answers.append({"failure": "DEPLOYMENT_BLOCKED"})
    guard = protection.Guard(url, longest_seconds=60)
    guard.update(busy=True)
    guard.update(busy=True)
    assert len(asked) == 2
    assert "DEPLOYMENT_BLOCKED" in caplog.text
    protection.Guard("http://127.0.0.1:9", longest_seconds=60).update(busy=True)
    assert "refused" in caplog.text
