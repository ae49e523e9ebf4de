"""Fixtures: environment variables that fit for fast tests, and a service that really runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from dev import emulator
from dev.results import UNREACHABLE

PROJECT = Path(__file__).parents[1]
CONTRACT = json.loads((PROJECT / "contract.json").read_text(encoding="utf-8"))
HURRIED = emulator.write_hurried_contract(Path(tempfile.mkdtemp()) / "contract.json")

VISIBILITY_TIMEOUT_SECONDS = 2

# Fast tests reach nothing: whatever they send by mistake is refused at once.
os.environ.update(
    {
        "CONTRACT_FILE": str(HURRIED),
        "ENVIRONMENT": "test",
        "QUEUE_URL_BASE": "http://127.0.0.1:9/123456789012",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": CONTRACT["region"],
        "AWS_ACCESS_KEY_ID": "TESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "test/secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        **UNREACHABLE,
    }
)


@dataclass
class RunningService:
    """The service on the emulator, with its workers as processes."""

    environment: dict[str, str]
    logs: Path
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start_worker(self, queue: str) -> None:
        """Start the worker of a queue, which also knows the tasks in tests/probes.py."""
        with (self.logs / f"{queue}.log").open("ab") as log:
            self.workers[queue] = subprocess.Popen(
                [sys.executable, "-m", CONTRACT["package"], "worker", queue, "--include=tests.probes"],
                cwd=PROJECT,
                env={**self.environment, "PYTHONPATH": f"{PROJECT / 'src'}{os.pathsep}{PROJECT}"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop_workers(self) -> None:
        """Stop every worker, gently and then not."""
        for worker in self.workers.values():
            worker.send_signal(signal.SIGTERM)
        for worker in self.workers.values():
            try:
                worker.wait(timeout=20)
            except subprocess.TimeoutExpired:
                worker.kill()

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python as a client of the service."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env={**self.environment, "PYTHONPATH": f"{PROJECT / 'src'}{os.pathsep}{PROJECT}"},
            capture_output=True,
            text=True,
            timeout=90,
        )

    def sqs(self) -> Any:
        """Return a client of the emulated SQS."""
        return boto3.client("sqs", endpoint_url=self.environment["AWS_ENDPOINT_URL"])

    def log(self, queue: str) -> str:
        """Return what the worker of a queue has logged."""
        return (self.logs / f"{queue}.log").read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run the emulator and one worker per queue, with a visibility timeout that tests can wait for."""
    with ExitStack() as stack:
        variables = stack.enter_context(emulator.running(VISIBILITY_TIMEOUT_SECONDS))
        running = RunningService({**os.environ, **variables}, tmp_path_factory.mktemp("logs"))
        stack.callback(running.stop_workers)
        for queue in CONTRACT["queues"]:
            running.start_worker(queue["name"])
        yield running
