"""A service that really runs, for the end-to-end tests: emulator, workers, and who sends to them."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from celery_aws import service
from celery_aws.contract import read
from celery_aws.dev import emulator
from celery_aws.testing import running

PROJECT = emulator.PROJECT
"""The service that was baked for the tests."""
CHASSIS = Path(running.__file__).parents[2]
"""Where the library and what belongs to it lie."""
VISIBILITY_TIMEOUT_SECONDS = 5
# First: it says what is wrong with a contract that breaks rules, and no test need be run.
FAST_CONTRACT = emulator.write_fast_contract(Path(tempfile.mkdtemp()) / "contract.json")
PATH = {"PYTHONPATH": emulator.import_path(), "PYTHONPYCACHEPREFIX": os.environ["PYTHONPYCACHEPREFIX"]}
"""Leads a Python to service, library and tests."""
CONTRACT = json.loads((PROJECT / "contract.json").read_text(encoding="utf-8"))
contract = read(PROJECT / "contract.json")
service.use(CONTRACT["package"])
eventually = running.eventually
HAS_RESULTS = CONTRACT["results"] != "none"
IS_FIFO = CONTRACT["broker"].endswith("fifo")


BROKER = contract.broker.partition("-")[0]

broker: Any = importlib.import_module(f"library.{BROKER}.broker")
"""What tests do at the broker, past the service."""
RESULT_PRICES = {"s3": {"s3_get", "s3_put"}, "dynamodb": {"dynamodb_read", "dynamodb_write"}}.get(
    contract.results, set()
)
"""What is paid for with each result."""
outages: Any = importlib.import_module(f"library.{contract.results}.outages")
"""How tests take the result backend away."""


def read_variables() -> Any:
    """Read every environment variable of the service, its own and those of its options."""
    return module("settings").read_settings(module("settings").Settings, *module("app").variables(contract))


def fields(contract: Any = contract) -> dict[str, Any]:
    """Return all of them as fields, by their lower-case names, for the service's contract or another."""
    kinds = (module("settings").Settings, *module("app").variables(contract))
    return {name: field for kind in kinds for name, field in kind.model_fields.items()}


def module(name: str) -> Any:
    """Return a module of the library by its short name."""
    return importlib.import_module(f"celery_aws.{name}")


def need(command: str) -> None:
    """Skip where a program is missing; in CI, where .ci/run installs it, fail instead."""
    if shutil.which(command) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{command} is missing, and CI should have installed it")
        pytest.skip(f"{command} is not installed on this machine")


def tasks_of(queue: str) -> Any:
    """Return the module of a queue's tasks, by the queue's name."""
    return importlib.import_module(f"{CONTRACT['package']}.tasks.{queue.replace('-', '_')}")


@dataclass
class RunningService(running.RunningService):
    """The service, whose workers also know the tasks in tests/probes.py."""

    include: tuple[str, ...] = ("library.probes",)

    def probe(self, name: str, *args: Any, group: str = "g", queue: Any = None, **options: Any) -> Any:
        """Return a task of tests/probes.py, ready to be sent to a queue (the first)."""
        signature = self.app.signature(f"library.probes.{name}", args=args)
        return signature.set(queue=self.contract.celery_name(queue or self.queue), MessageGroupId=group, **options)

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        """Send a task of tests/probes.py; see `probe`."""
        with self.reached():
            return self.probe(name, *args, **options).apply_async()


def running_service(logs: Path, emulated_visibility_seconds: int | None = None, **values: Any) -> Any:
    """Run an emulator, and no worker yet; stop the workers in the end. See `celery_aws.testing.running`."""
    return running.running_service(logs, emulated_visibility_seconds, RunningService, **values)


@contextlib.contextmanager
def producer_behind_faults(service: RunningService) -> Iterator[tuple[Any, Any]]:
    """Yield the application of a producer that reaches the broker of a service through a proxy, and the proxy."""
    with broker.faulty(service) as (between, variables):
        between.target = "*"
        behind = running.RunningService({**service.environment, **variables}, service.logs)
        if BROKER == "sqs":  # Applications with the same settings share connections.
            behind.app.conf.broker_transport_options["client-config"]["user_agent_extra"] = between.url
        try:
            with behind.reached():
                yield behind.app, between
        finally:
            between.fault = ""


def renamed(contract: Any, name: str = "renamed") -> Any:
    """Return a contract whose first queue has another name, for its worker as well."""
    first, *others = contract.queues
    workers = (
        replace(worker, queues=tuple(name if queue == first.name else queue for queue in worker.queues))
        for worker in contract.workers
    )
    return replace(contract, queues=(replace(first, name=name), *others), workers=tuple(workers))


def notes(folder: Path) -> list[Path]:
    """Return the notes that probes left in a folder, oldest first."""
    return sorted(path for path in folder.iterdir() if path.is_file())
