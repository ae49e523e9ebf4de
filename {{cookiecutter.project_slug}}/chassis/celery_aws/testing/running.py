"""A service that really runs, for tests: emulator, workers, and who sends to them."""

from __future__ import annotations

import contextlib
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

from ..app import build
from ..contract import Contract, read
from ..dev import brokers as emulated_brokers
from ..dev import emulator
from ..dev import results as emulated_results
from ..settings import Settings
from . import brokers


def eventually(holds: Callable[[], Any], seconds: float = 40) -> Any:
    """Wait until `holds()` is true, and return what it returned."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def unreachable(contract: Contract) -> dict[str, str]:
    """Return environment variables with which the application can be built, and whatever it sends fails at once."""
    return {
        "ENVIRONMENT": "test",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": contract.region,
        "AWS_ACCESS_KEY_ID": "TESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "test/secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        **emulated_brokers.chosen(contract).UNREACHABLE,
        **emulated_results.unreachable(contract),
    }


@dataclass
class RunningService:
    """The service on the emulator, with its workers as processes."""

    environment: dict[str, str]
    logs: Path
    include: tuple[str, ...] = ("celery_aws.testing.tasks",)
    """Modules of tasks that workers know beside those of the service."""
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.contract = read(Path(self.environment["CONTRACT_FILE"]))
        self.queue = self.contract.queues[0]
        """The queue that tests use which need just one."""
        with self.reached():
            self.app = build(self.contract, Settings)

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
        """Start the worker of a queue (the first).

        Args:
            queue: its short name.
            label: what the worker is called here; the queue's name, if nothing else.
            extra: further arguments.
            command: instead of the service's own, as arguments of `python -m`.
            variables: further environment variables.
        """
        queue = queue or self.queue.name
        command = command or [self.contract.package, "worker", queue]
        with (self.logs / f"{label or queue}.log").open("ab") as log:
            worker = self.workers[label or queue] = subprocess.Popen(
                [sys.executable, "-m", *command, *(f"--include={name}" for name in self.include), *extra],
                cwd=emulator.PROJECT,
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
            cwd=emulator.PROJECT,
            env=self.client_environment(),
            capture_output=True,
            text=True,
            timeout=patience_seconds,
        )

    def client_environment(self) -> dict[str, str]:
        """Return the environment variables of a process that uses the service."""
        return {**self.environment, "PYTHONPATH": emulator.import_path()}

    def log(self, label: str = "") -> str:
        """Return what a worker has logged."""
        return (self.logs / f"{label or self.queue.name}.log").read_text(encoding="utf-8", errors="replace")

    def state(self, result: Any) -> str:
        """Return the state of a result."""
        with self.reached():
            return str(result.state)

    def waiting(self, queue: Any = None) -> int:
        """Return how many messages a queue (the first) holds, hidden ones included."""
        return int(brokers.chosen(self.contract).count(self, queue or self.queue, dead=False))

    def dead(self, queue: Any = None) -> int:
        """Return how many messages the dead-letter queue of a queue (the first) holds."""
        return int(brokers.chosen(self.contract).count(self, queue or self.queue, dead=True))

    def queue_name(self, queue: Any = None, *, dead: bool = False) -> str:
        """Return the name at the broker of a queue (the first), or of its dead-letter queue."""
        name = self.contract.dead_letter_queue_name if dead else self.contract.queue_name
        return str(name(queue or self.queue, "development"))

    def url(self, queue: Any = None, *, dead: bool = False) -> str:
        """Return the URL of a queue (the first), or of its dead-letter queue, where queues have one."""
        return f"{self.environment['QUEUE_URL_BASE']}/{self.queue_name(queue, dead=dead)}"


@contextlib.contextmanager
def running_service(
    logs: Path,
    emulated_visibility_seconds: int | None = None,
    kind: type[RunningService] = RunningService,
    **numbers: float,
) -> Iterator[Any]:
    """Run an emulator, and no worker yet; stop the workers in the end.

    Args:
        logs: folder for the workers' logs.
        emulated_visibility_seconds: of the emulated queues, where a test cannot wait for the contract's.
        kind: what is to be returned.
        numbers: values to change in the contract, in every queue where they are a queue's.
    """
    path = emulator.write_hurried_contract(Path(tempfile.mkdtemp(dir=logs)) / "contract.json")
    contract = json.loads(path.read_text(encoding="utf-8"))
    for name, value in numbers.items():
        for home in (contract, *contract["queues"]):
            if name in home:
                home[name] = value
    path.write_text(json.dumps(contract), encoding="utf-8")
    brokers.chosen(read(path)).prepare()
    with emulator.running(emulated_visibility_seconds, contract=path) as variables:
        service = kind({**os.environ, **variables, "CONTRACT_FILE": str(path)}, logs)
        try:
            yield service
        finally:
            service.stop_workers()
