"""A deployment under a permanent backlog ends: real workers, a fake ECS agent and a fake ECS service.

The fake service behaves as documented: it starts the new worker first, does not stop a protected worker, and answers
DEPLOYMENT_BLOCKED if more workers would be protected than are desired. A stricter one protects none while it deploys.
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from library.support import broker, eventually, notes, running_service

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(180)]

HARD_LIMIT_SECONDS = 8
TASK_SECONDS = (3, 4)
"""One of them has always run for more than a second, after which it is protected."""
DESIRED = 1


class Ecs:
    """An ECS service with one desired task, and the agents of its tasks."""

    def __init__(self, strict):
        self.strict, self.deploying = strict, False
        self.protected_until, self.asked, self.blocked = {}, [], []
        self.lock = threading.Lock()
        ecs = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = json.dumps(ecs.update(self.path.split("/")[1], wanted)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def agent(self, label):
        return f"http://127.0.0.1:{self.server.server_port}/{label}"

    def is_protected(self, label):
        return time.monotonic() < self.protected_until.get(label, 0)

    def update(self, label, wanted):
        """Answer a request of a worker as the agent does."""
        with self.lock:
            self.asked.append((label, wanted["ProtectionEnabled"]))
            if wanted["ProtectionEnabled"]:
                others = [other for other in self.protected_until if other != label and self.is_protected(other)]
                if len(others) + 1 > DESIRED or (self.strict and self.deploying):
                    self.blocked.append(label)
                    return {"requestID": "1", "failure": {"Arn": label, "Reason": "DEPLOYMENT_BLOCKED", "Detail": None}}
            self.protected_until[label] = time.monotonic() + 60 * wanted.get("ExpiresInMinutes", 0)
            return {"requestID": "1", "protection": {**wanted, "TaskArn": label}}

    def replace(self, worker, label, stop_timeout_seconds, patience_seconds):
        """Stop an old worker as soon as it is not protected; return how long that took, or None."""
        began = time.monotonic()
        self.deploying = True
        if not eventually(lambda: not self.is_protected(label), patience_seconds):
            return None
        worker.terminate()
        worker.wait(stop_timeout_seconds)
        self.deploying = False
        return time.monotonic() - began


@pytest.fixture(params=[False, True], ids=["documented", "strict"])
def ecs(request):
    running = Ecs(request.param)
    yield running
    running.server.shutdown()


def ended(folder):
    """Return how many tasks have ended."""
    return sum(note.suffix == ".ended" for note in notes(folder))


def test_deployment_when_the_backlog_is_permanent_then_ends(ecs, tmp_path):
    limits = {"hard_limit_seconds": HARD_LIMIT_SECONDS, "soft_limit_seconds": HARD_LIMIT_SECONDS - 1}
    with running_service(tmp_path, soft_shutdown_seconds=2, concurrency=2, **limits) as service:
        stop_timeout_seconds = service.contract.stop_timeout_seconds
        (tmp_path / "done").mkdir()
        for number in range(40):
            service.send("overrun", str(tmp_path / "done"), TASK_SECONDS[number % 2], group=str(number))

        service.include = (",".join((*service.include, "library.ecs.quick")),)

        def start(label):
            worker = service.start_worker(label=label, ECS_AGENT_URI=ecs.agent(label))
            assert service.ready(label), service.log(label)
            return worker

        old = start("old")
        assert eventually(lambda: ecs.is_protected("old"), 20), service.log("old")
        start("new")
        seconds = ecs.replace(old, "old", stop_timeout_seconds, 3 * HARD_LIMIT_SECONDS)
        assert seconds is not None, ecs.asked
        assert seconds < HARD_LIMIT_SECONDS + stop_timeout_seconds
        assert "new" in ecs.blocked or not ecs.strict

        # The new worker goes on with the backlog, and is protected when the deployment has ended.
        done = ended(tmp_path / "done")
        assert eventually(lambda: ended(tmp_path / "done") > done + 1, 20)
        assert eventually(lambda: ecs.is_protected("new"), 20), ecs.asked
        assert service.dead() == 0
        broker.empty(service, dead=False)
