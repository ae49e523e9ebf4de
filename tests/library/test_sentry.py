"""docs/tracing.md on Sentry, followed word for word: a real worker reports a task once, when it has failed for good."""

from __future__ import annotations

import gzip
import json
import re
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from library.support import CONTRACT, PROJECT, eventually, running_service

pytestmark = pytest.mark.end_to_end

PAGE = (PROJECT / "docs" / "tracing.md").read_text(encoding="utf-8").partition("## Errors in Sentry")[2]
PACKAGE = PROJECT / "src" / CONTRACT["package"]


@pytest.fixture(scope="module")
def followed():
    """The service with what the page adds to it."""
    first, line = (textwrap.dedent(code) for code in re.findall(r"^ *```python\n(.*?)^ *```", PAGE, re.M | re.S))
    added, application = PROJECT / first.partition("\n")[0].removeprefix("# "), PACKAGE / "celery.py"
    before = application.read_text(encoding="utf-8")
    added.write_text(first, encoding="utf-8")
    application.write_text(before.replace("\napp = ", f"\n{line}\napp = "), encoding="utf-8")
    yield
    application.write_text(before, encoding="utf-8")
    added.unlink()


@pytest.fixture(scope="module")
def events():
    """What arrives at Sentry, and its address."""
    received = []

    class Sentry(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            lines = (gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body).splitlines()
            for kind, content in zip(lines[1::2], lines[2::2], strict=False):
                if json.loads(kind).get("type") == "event":
                    received.append(json.loads(content))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sentry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield received, f"http://key@127.0.0.1:{server.server_port}/1"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def reporting(followed, events, tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("logs"), max_receive_count=3) as service:
        service.start_worker(SENTRY_DSN=events[1])
        assert service.ready(), service.log()
        yield service


def reports(events, task_id):
    """Return attempt, outcome and kinds of exceptions of each event about a task."""
    extra = [(event, event.get("extra", {})) for event in events[0]]
    return [
        (about["attempt"], about["outcome"], [each["type"] for each in event["exception"]["values"]])
        for event, about in extra
        if about.get("task_id") == task_id
    ]


CASES = {
    "raises": ("leave_trace", (__file__,), (3, "dead_lettered", ["RuntimeError"])),
    "is permanent": ("despair", (), (1, "dead_lettered", ["HopelessError"])),
    "does not exist": ("missing", (), (3, "dead_lettered", ["NotRegistered"])),
    "is killed": ("die_while", (__file__,), (3, "dead_lettered", ["WorkerLostError"])),
}


def test_sentry_when_tasks_fail_then_gets_one_event_each(reporting, events, tmp_path):
    spared = reporting.send("fail_once_plain", str(tmp_path), group="spared").id
    sent = {}

    def arrived():
        return {name: reports(events, task_id) for name, task_id in sent.items()}

    for name, (task, more, _) in CASES.items():
        if name == "is killed":  # A killed process loses what it has not sent yet.
            assert eventually(lambda: all(arrived().values())), reporting.log()
        sent[name] = reporting.send(task, str(tmp_path), *more, group=name.replace(" ", "-")).id
    assert eventually(lambda: reporting.dead() == len(CASES)), reporting.log()
    assert eventually(lambda: all(arrived().values())), reporting.log()
    reporting.stop_workers()
    assert arrived() == {name: [end] for name, (*_, end) in CASES.items()}
    assert f'"{spared}"' in reporting.log()
    assert reports(events, spared) == []
    assert {event["environment"] for event in events[0]} == {"development"}
