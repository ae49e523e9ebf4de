"""How large the image is, and how soon its worker polls.

Size is what the image adds to Python's own. The start is measured from `podman run` to the first
request for messages, against the same image's `python -c pass`, which is what the engine needs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.services import bake
from tools.figures import Figure

IMAGE = "localhost/benchmark"
TURNS = 5
BUILD = ("podman", "build", "--isolation", "chroot", "--network", "host", "--tag", IMAGE)
RUN = ("podman", "run", "--rm", "--network", "host", "--read-only")


def output(*command: str) -> str:
    """Run a command and return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def megabytes(image: str) -> float:
    """Return the size of an image."""
    return int(output("podman", "image", "inspect", image, "--format", "{{.Size}}")) / 1_000_000


class FirstPoll(BaseHTTPRequestHandler):
    """Notes when the first request arrives, and answers that there is no message."""

    arrived = threading.Event()

    def do_POST(self) -> None:
        """Answer a poll."""
        self.arrived.set()
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def seconds_to_poll(project: Path, environment: dict[str, str]) -> float:
    """Start a worker, and return how long it took to poll."""
    contract = json.loads((project / "contract.json").read_text(encoding="utf-8"))
    variables = [f"--env={name}={value}" for name, value in environment.items()]
    worker = contract["workers"][0]["name"]
    FirstPoll.arrived.clear()
    began = time.perf_counter()
    command = (*RUN, *variables, "--name", "benchmark", IMAGE, contract["service"], "worker", worker)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        polled = FirstPoll.arrived.wait(60)
        spent = time.perf_counter() - began
        output("podman", "kill", "benchmark")
    if not polled:
        sys.exit("the worker did not poll within a minute")
    return spent


def measure() -> list[Figure]:
    """Return how large the image is, and how long its worker takes to poll."""
    with tempfile.TemporaryDirectory() as folder:
        project = bake(Path(folder), "sqs-standard")
        output(*BUILD, str(project))
        base = next(line.split()[1] for line in (project / "Dockerfile").read_text().splitlines() if "FROM" in line)
        added = megabytes(IMAGE) - megabytes(base)
        server = ThreadingHTTPServer(("127.0.0.1", 0), FirstPoll)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        environment = {
            "ENVIRONMENT": "development",
            "QUEUE_URL_BASE": f"{url}/123456789012",
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "BENCHMARKBENCHMARK",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
        }
        starts, nothings = [], []
        for _ in range(TURNS):
            starts.append(seconds_to_poll(project, environment))
            began = time.perf_counter()
            output(*RUN, IMAGE, "python", "-c", "pass")
            nothings.append(time.perf_counter() - began)
        start, nothing = statistics.median(starts), statistics.median(nothings)
    return [
        Figure("podman run to a worker's first poll", start, "s", "≤ 3", "python -c pass", nothing),
        Figure("what the image adds to Python's own", added, "MB", "≤ 150"),
    ]
