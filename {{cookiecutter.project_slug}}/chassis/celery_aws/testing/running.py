"""A running service for tests: an emulator, workers and a producer."""

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


def eventually(holds: Callable[[], Any], seconds: float = 40, pause_seconds: float = 0.1) -> Any:
    """Call `holds()` until its value is true or the time is over, and return the last value."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(pause_seconds)
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
        **emulated_brokers.chosen(contract).unreachable(contract),
        **emulated_results.unreachable(contract),
    }


@dataclass
class RunningService:
    """A service on the emulator, with its workers as processes."""

    environment: dict[str, str]
    logs: Path
    include: tuple[str, ...] = ("celery_aws.testing.tasks",)
    """Modules with further tasks for the workers."""
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.contract = read(Path(self.environment["CONTRACT_FILE"]))
        self.queue = self.contract.queues[0]
        """The first queue, for tests that need only one."""
        self.worker = self.contract.worker_of(self.queue)
        """The worker of the first queue."""
        with self.reached():
            self.app = build(self.contract, Settings)

    def reached(self) -> Any:
        """Return a context manager that sets the emulator's environment variables, which boto3 reads."""
        return mock.patch.dict(os.environ, self.environment)

    def client(self, aws: str) -> Any:
        """Return a boto3 client of an emulated AWS service."""
        return boto3.client(aws, endpoint_url=self.environment["AWS_ENDPOINT_URL"])

    def start_worker(
        self,
        name: str = "",
        label: str = "",
        extra: Sequence[str] = (),
        command: Sequence[str] = (),
        **variables: str,
    ) -> subprocess.Popen[bytes]:
        """Start a worker.

        Args:
            name: name of the worker; by default the one of the first queue.
            label: label of the worker, for `log`; by default its name.
            extra: further arguments.
            command: arguments of `python -m`, instead of the service's own worker command.
            variables: further environment variables.
        """
        name = name or self.worker.name
        command = command or [self.contract.package, "worker", name]
        with (self.logs / f"{label or name}.log").open("ab") as log:
            worker = self.workers[label or name] = subprocess.Popen(
                [sys.executable, "-m", *command, *(f"--include={name}" for name in self.include), *extra],
                cwd=emulator.PROJECT,
                env={**self.client_environment(), "LIVENESS_DIRECTORY": str(self.logs), **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return worker

    def ready(self, label: str = "") -> bool:
        """Wait until the worker with a label is ready; return whether it is."""
        return bool(eventually(lambda: " ready." in self.log(label), 90))

    def stop_workers(self, warm_seconds: float = 3) -> None:
        """Stop all workers with SIGTERM, then SIGQUIT, then SIGKILL.

        Args:
            warm_seconds: how long workers may complete their tasks, and what they do as they end, in seconds.
        """
        for number, timeout_seconds in ((signal.SIGTERM, warm_seconds), (signal.SIGQUIT, 15), (signal.SIGKILL, 5)):
            for worker in self.workers.values():
                worker.send_signal(number)
            end = time.monotonic() + timeout_seconds
            while time.monotonic() < end and any(worker.poll() is None for worker in self.workers.values()):
                time.sleep(0.05)

    def python(self, *arguments: str, timeout_seconds: float = 90) -> subprocess.CompletedProcess[str]:
        """Run Python with the service's environment variables."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=emulator.PROJECT,
            env=self.client_environment(),
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )

    def client_environment(self) -> dict[str, str]:
        """Return the environment variables for a process that uses the service."""
        return {**self.environment, "PYTHONPATH": emulator.import_path()}

    def log(self, label: str = "") -> str:
        """Return the log of the worker with a label."""
        return (self.logs / f"{label or self.worker.name}.log").read_text(encoding="utf-8", errors="replace")

    def state(self, result: Any) -> str:
        """Return the state of a result, from the emulator."""
        with self.reached():
            return str(result.state)

    def waiting(self, queue: Any = None) -> int:
        """Return the number of messages in a queue (by default the first), including those in flight."""
        return int(brokers.chosen(self.contract).count(self, queue or self.queue, dead=False))

    def dead(self, queue: Any = None) -> int:
        """Return the number of messages in the dead-letter queue of a queue (by default the first)."""
        return int(brokers.chosen(self.contract).count(self, queue or self.queue, dead=True))

    def queue_name(self, queue: Any = None, *, dead: bool = False) -> str:
        """Return the name of a queue (by default the first), or of its dead-letter queue, at the broker."""
        return str(self.contract.queue_name(queue or self.queue, "development", dead=dead))

    def url(self, queue: Any = None, *, dead: bool = False) -> str:
        """Return the URL of a queue (by default the first), or of its dead-letter queue; SQS only."""
        base = self.environment["QUEUE_URL_BASE"]
        return self.contract.queue_url(queue or self.queue, base, "development", dead=dead)


@contextlib.contextmanager
def running_service(
    logs: Path,
    emulated_visibility_seconds: int | None = None,
    kind: type[RunningService] = RunningService,
    **values: Any,
) -> Iterator[Any]:
    """Run an emulator without workers; at the end, stop all workers that were started.

    Args:
        logs: folder for the workers' logs.
        emulated_visibility_seconds: visibility timeout of the emulated queues instead of the contract's.
        kind: class of the running service.
        values: values of the contract, or of all its queues and workers, to change.
    """
    path = emulator.write_fast_contract(Path(tempfile.mkdtemp(dir=logs)) / "contract.json")
    contract = json.loads(path.read_text(encoding="utf-8"))
    for name, value in values.items():
        if name in Contract.__dataclass_fields__:
            contract[name] = value
            continue
        for section in emulator.sections(contract):
            if name in section:
                section[name] = value
    path.write_text(json.dumps(contract), encoding="utf-8")
    brokers.chosen(read(path)).prepare()
    with emulator.running(emulated_visibility_seconds, contract=path) as variables:
        service = kind({**os.environ, **variables, "CONTRACT_FILE": str(path)}, logs)
        try:
            yield service
        finally:
            service.stop_workers()
