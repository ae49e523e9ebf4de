"""A service that really runs, for the end-to-end tests: emulator, workers, and who sends to them."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import boto3

from celery_aws import service
from celery_aws.dev import emulator
from tests import broker

PROJECT = Path(__file__).parents[1]
# First: it says what is wrong with a contract that breaks rules, and no test need be run.
HURRIED = emulator.write_hurried_contract(Path(tempfile.mkdtemp()) / "contract.json")
PATH = {"PYTHONPATH": os.pathsep.join(str(PROJECT / folder) for folder in ("src", "chassis", ""))}
"""Leads a Python to service, library and tests, installed or not."""
CONTRACT = json.loads((PROJECT / "contract.json").read_text(encoding="utf-8"))
service.use(CONTRACT["package"])
HAS_RESULTS = CONTRACT["results"] != "none"
IS_FIFO = CONTRACT["broker"].endswith("fifo")


def module(name: str) -> Any:
    """Return a module of the library by its short name."""
    return importlib.import_module(f"celery_aws.{name}")


def tasks_of(queue: str) -> Any:
    """Return the module of a queue's tasks, by the queue's name."""
    return importlib.import_module(f"{CONTRACT['package']}.tasks.{queue.replace('-', '_')}")


def eventually(holds: Callable[[], Any], seconds: float = 40) -> Any:
    """Wait until `holds()` is true, and return what it returned."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


@dataclass
class RunningService:
    """The service on the emulator, with its workers as processes."""

    environment: dict[str, str]
    logs: Path
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.contract = module("contract").read(Path(self.environment["CONTRACT_FILE"]))
        self.queue = self.contract.queues[0]
        """The queue that tests use which need just one."""
        with self.reached():
            self.app = module("app").build(self.contract, module("settings").Settings())

    def reached(self) -> Any:
        """Let boto3 find this emulator, in a `with` block: it reads the environment at its first request."""
        return mock.patch.dict(os.environ, self.environment)

    def client(self, aws: str) -> Any:
        """Return a boto3 client of a service of the emulated AWS."""
        return boto3.client(aws, endpoint_url=self.environment["AWS_ENDPOINT_URL"])

    def start_worker(
        self,
        queue: str = "",
        label: str = "",
        extra: Sequence[str] = (),
        command: Sequence[str] = (),
        **variables: str,
    ) -> subprocess.Popen[bytes]:
        """Start the worker of a queue (the first), which also knows the tasks in tests/probes.py.

        Args:
            queue: its short name.
            label: what the worker is called here; the queue's name, if nothing else.
            extra: further arguments.
            command: instead of the service's own, as arguments of `python -m`.
            variables: further environment variables.
        """
        queue = queue or self.queue.name
        command = command or [CONTRACT["package"], "worker", queue]
        with (self.logs / f"{label or queue}.log").open("ab") as log:
            worker = self.workers[label or queue] = subprocess.Popen(
                [sys.executable, "-m", *command, "--include=tests.probes", *extra],
                cwd=PROJECT,
                env={**self.client_environment(), "LIVENESS_DIRECTORY": str(self.logs), **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return worker

    def ready(self, label: str = "") -> bool:
        """Return whether a worker polls, after it was started with that label."""
        return bool(eventually(lambda: " ready." in self.log(label or self.queue.name), 30))

    def stop_workers(self) -> None:
        """Stop every worker, gently and then not."""
        for number, patience_seconds in ((signal.SIGTERM, 3), (signal.SIGQUIT, 15), (signal.SIGKILL, 5)):
            for worker in self.workers.values():
                worker.send_signal(number)
            end = time.monotonic() + patience_seconds
            while time.monotonic() < end and any(worker.poll() is None for worker in self.workers.values()):
                time.sleep(0.05)

    def python(self, *arguments: str, patience_seconds: float = 90) -> subprocess.CompletedProcess[str]:
        """Run Python as a client of the service."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env=self.client_environment(),
            capture_output=True,
            text=True,
            timeout=patience_seconds,
        )

    def client_environment(self) -> dict[str, str]:
        """Return the environment variables of a process that uses the service."""
        return {**self.environment, **PATH}

    def log(self, label: str = "") -> str:
        """Return what a worker has logged."""
        return (self.logs / f"{label or self.queue.name}.log").read_text(encoding="utf-8", errors="replace")

    def probe(self, name: str, *args: Any, group: str = "g", queue: Any = None, **options: Any) -> Any:
        """Return a task of tests/probes.py, ready to be sent to a queue (the first)."""
        signature = self.app.signature(f"tests.probes.{name}", args=args)
        return signature.set(queue=self.contract.celery_name(queue or self.queue), MessageGroupId=group, **options)

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        """Send a task of tests/probes.py; see `probe`."""
        with self.reached():
            return self.probe(name, *args, **options).apply_async()

    def state(self, result: Any) -> str:
        """Return the state of a result."""
        with self.reached():
            return str(result.state)

    def waiting(self, queue: Any = None) -> int:
        """Return how many messages a queue (the first) holds, hidden ones included."""
        return broker.count(self, queue or self.queue, dead=False)

    def dead(self, queue: Any = None) -> int:
        """Return how many messages the dead-letter queue of a queue (the first) holds."""
        return broker.count(self, queue or self.queue, dead=True)

    def queue_name(self, queue: Any = None, *, dead: bool = False) -> str:
        """Return the name at the broker of a queue (the first), or of its dead-letter queue."""
        name = self.contract.dead_letter_queue_name if dead else self.contract.queue_name
        return str(name(queue or self.queue, "development"))

    def url(self, queue: Any = None, *, dead: bool = False) -> str:
        """Return the URL of a queue (the first), or of its dead-letter queue, where queues have one."""
        return f"{self.environment['QUEUE_URL_BASE']}/{self.queue_name(queue, dead=dead)}"


@contextlib.contextmanager
def running_service(
    logs: Path, emulated_visibility_seconds: int | None = None, **numbers: float
) -> Iterator[RunningService]:
    """Run an emulator, and no worker yet; stop the workers in the end.

    Args:
        logs: folder for the workers' logs.
        emulated_visibility_seconds: of the emulated queues, where a test cannot wait for the contract's.
        numbers: values to change in the contract, in every queue where they are a queue's.
    """
    contract = json.loads(HURRIED.read_text(encoding="utf-8"))
    for name, value in numbers.items():
        for home in (contract, *contract["queues"]):
            if name in home:
                home[name] = value
    path = Path(tempfile.mkdtemp(dir=logs)) / "contract.json"
    path.write_text(json.dumps(contract), encoding="utf-8")
    broker.prepare()
    with emulator.running(emulated_visibility_seconds, contract=path) as variables:
        service = RunningService({**os.environ, **variables, "CONTRACT_FILE": str(path)}, logs)
        try:
            yield service
        finally:
            service.stop_workers()


def notes(folder: Path) -> list[Path]:
    """Return the notes that probes left in a folder, oldest first."""
    return sorted(path for path in folder.iterdir() if path.is_file())
