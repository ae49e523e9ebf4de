"""A proxy in front of the emulator that does to requests what networks and AWS do on bad days, and counts them."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

ERRORS = {
    "throttled": (400, "RequestThrottled"),
    "expired": (403, "ExpiredToken"),
    "denied": (403, "AccessDeniedException"),
    "gone": (400, "QueueDoesNotExist"),
}
SHAPES = {
    "garbage": b"\x00 not JSON",
    "nothing": b"{}",
    "empty": b"",
    "list": b"[]",
    "number": b"7",
    "messages are text": b'{"Messages": "none"}',
    "messages are numbers": b'{"Messages": [1], "Successful": [1], "Failed": 2}',
    "messages have no body": b'{"Messages": [{"MessageId": "1"}], "Successful": [{"Id": 1}]}',
    "page": b"<html>Sign in to this network</html>",
}
"""Bodies that are no answers of AWS, though their status says so."""

STORM = ("500", "503", "throttled", "expired", "reset", "half", "garbage")
FAULTS = ("500", "502", "503", "504", *ERRORS, *SHAPES, "hang", "drip", "reset", "half", "refused")


class Proxy(ThreadingHTTPServer):
    """Hands requests on; does `fault` to those for `target`, or random faults to some of all that workers send.

    A request's target is its operation, such as `ReceiveMessage`, or for S3 its method.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = urlsplit(upstream).netloc
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.fault = ""
        self.target = "ReceiveMessage"
        self.holding = b""
        """What else a request must hold for something to go wrong with it, such as the name of a queue."""
        self.storm = 0.0
        """Share of the workers' requests that go wrong at random."""
        self.faulty = 0
        self.seen: Counter[str] = Counter()

    def fault_of(self, target: str) -> str:
        """Return what is to go wrong with a request, if anything."""
        if self.fault and self.target in (target, "*"):
            return self.fault
        workers = target.startswith(("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility"))
        return random.choice(STORM) if workers and random.random() < self.storm else ""

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients that went away are the point."""


class Handler(BaseHTTPRequestHandler):
    """Handles one connection."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_POST(self) -> None:
        """Hand a request on, unless it is a poll that is to fail."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target = self.headers.get("X-Amz-Target", "").rpartition(".")[2] or self.command
        self.server.seen[target] += 1
        if self.server.holding in body and (fault := self.server.fault_of(target)):
            self.server.faulty += 1
            self._fail(fault)
        else:
            self._hand_on(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST  # noqa: N815 - as BaseHTTPRequestHandler calls them

    def _hand_on(self, body: bytes) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self._finish(content)

    def _fail(self, fault: str) -> None:
        self.close_connection = True
        if fault.isdigit():
            self.send_response(int(fault))
            self._finish(b"<html>Service trouble</html>")
        elif fault in ERRORS:
            status, code = ERRORS[fault]
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self._finish(json.dumps({"__type": f"com.amazonaws#{code}", "message": "as told"}).encode())
        elif fault == "hang":
            time.sleep(60)
        elif fault == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(b" ")
                time.sleep(1)
        elif fault == "half":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"Messages": [')
        elif fault in SHAPES:
            self.send_response(200)
            self._finish(SHAPES[fault])
        else:
            # Closing with nothing lingering sends a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _finish(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextlib.contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy in front of the emulator."""
    server = Proxy(upstream)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def refusing(server: Proxy) -> Iterator[None]:
    """Refuse every connection for a while."""
    server.fault = "reset"  # for the connections that are open already
    server.shutdown()
    server.socket.close()
    try:
        yield
    finally:
        server.fault = ""
        server.socket = socket.create_server(server.server_address)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


class Outages:
    """Makes outages of the result backend of a service whose workers get `variables`."""

    def __init__(self, between: Proxy) -> None:
        self.between = between
        self.variables = {"AWS_ENDPOINT_URL_S3": between.url, "AWS_ENDPOINT_URL_DYNAMODB": between.url}
        between.target = "*"

    @contextlib.contextmanager
    def outage(self, kind: str) -> Iterator[None]:
        """Be unavailable for a while."""
        if kind == "refused":
            with refusing(self.between):
                yield
            return
        self.between.fault = kind
        try:
            yield
        finally:
            self.between.fault = ""


@contextlib.contextmanager
def results_behind(environment: dict[str, str]) -> Iterator[Outages]:
    """Put a proxy in front of the result backend, S3 or DynamoDB."""
    with proxy(environment["AWS_ENDPOINT_URL"]) as between:
        yield Outages(between)
