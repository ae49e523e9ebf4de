"""The library's tests run where it lies, on a service that is baked for them; see CONTRIBUTING.md.

Which one is said by the environment variable ANSWERS, such as `broker=rabbitmq results=redis`. Folders are named after
options: their tests run where the service has chosen these.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
from celery import Celery

TESTS = Path(__file__).parents[1]
TEMPLATE = TESTS.parent
CHASSIS = Path(os.environ.get("CHASSIS") or TEMPLATE / "{{cookiecutter.project_slug}}" / "chassis")
"""Where the library is; a test that breaks it has a copy."""


OWN_TASKS = """
import time

from ..celery import app


@app.task
def measure(text: str) -> int:
    return len(text)


@app.task(permanent_errors=(ValueError,))
def refuse(reason: str) -> None:
    raise ValueError(reason)


@app.task
def rest(seconds: float) -> None:
    time.sleep(seconds)
"""
"""What an owner adds to the module of each queue."""


def bake(answers: str) -> Path:
    """Bake a service, or copy one that is baked, into a folder that is removed when this process ends.

    It gets tasks of its own.
    """
    folder = tempfile.mkdtemp(prefix="library-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if baked := os.environ.get("BAKED"):
        project = shutil.copytree(baked, Path(folder) / Path(baked).name)
    else:
        options = ("--no-input", "--default-config", "--output-dir", folder)
        command = [sys.executable, "-m", "cookiecutter", *options, str(TEMPLATE), *shlex.split(answers)]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        (project,) = Path(folder).iterdir()
    for queue in json.loads((project / "contract.json").read_text(encoding="utf-8"))["queues"]:
        (module,) = project.glob(f"src/*/tasks/{queue['name'].replace('-', '_')}.py")
        module.write_text(module.read_text(encoding="utf-8") + OWN_TASKS, encoding="utf-8")
    return project


PROJECT = bake(os.environ.get("ANSWERS", ""))
# The library reads where it is; what is installed beside it would be the baked copy.
shutil.rmtree(PROJECT / "chassis" / "celery_aws")
os.chdir(PROJECT)
sys.path[:0] = [str(PROJECT / "src"), str(CHASSIS), str(TESTS)]

import caches  # noqa: E402

caches.share()

from module_tests import add_module_tests, words  # noqa: E402

from celery_aws import doctor, options  # noqa: E402
from celery_aws import service as services  # noqa: E402
from celery_aws.contract import CHOICES  # noqa: E402
from celery_aws.dev import emulator  # noqa: E402
from celery_aws.sending import Service  # noqa: E402
from celery_aws.testing.running import unreachable  # noqa: E402
from library.support import (  # noqa: E402
    CONTRACT,
    FAST_CONTRACT,
    VISIBILITY_TIMEOUT_SECONDS,
    RunningService,
    contract,
    eventually,
    running_service,
)

if os.environ.get(emulator.RUNNING):
    # Each service has an account of its own there, by its credentials; boto3 would keep the first one's.
    boto3.client = lambda *args, **options: boto3.Session().client(*args, **options)

pytest_plugins = ["celery_aws.testing.plugin"]

OPTIONS = words([option for options in CHOICES.values() for option in options])
CHOSEN = words([CONTRACT[choice] for choice in CHOICES])

add_module_tests(PROJECT)

# A shell starts jobs in the background deaf to Ctrl-C, and they hand that on to what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Fast tests reach nothing: whatever they send by mistake is refused at once.
os.environ.update({"CONTRACT_FILE": str(FAST_CONTRACT), **unreachable(contract)})


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the folders of options that the service has not chosen."""
    return True if {*collection_path.parts} & OPTIONS - CHOSEN else None


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run the service with its workers, and a visibility timeout that tests can wait for."""
    with running_service(tmp_path_factory.mktemp("logs"), VISIBILITY_TIMEOUT_SECONDS) as running:
        for worker in running.contract.workers:
            running.start_worker(worker.name)
        yield running


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run the service without a worker, each test module its own."""
    with running_service(tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run the service with workers that are ready, each test module its own."""
    with running_service(tmp_path_factory.mktemp("logs")) as running:
        for worker in running.contract.workers:
            running.start_worker(worker.name)
        assert all(running.ready(worker.name) for worker in running.contract.workers)
        yield running


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record what the service's application would send."""
    messages = []

    def record(self: Any, name: str, args: Any = None, kwargs: Any = None, *positional: Any, **options: Any) -> Any:
        messages.append({"task": name, "args": args, "kwargs": kwargs, **options})
        return self.AsyncResult(options["task_id"])

    monkeypatch.setattr(Celery, "send_task", record)
    # A group would listen for its results.
    backend = services.app().backend
    monkeypatch.setattr(backend, "add_pending_result", lambda result, *rest, **options: result, raising=False)
    return messages


@pytest.fixture
def outgoing(sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record what the service's application would send, also in a batch."""
    monkeypatch.setattr(Service, "batching", lambda self, timeout_seconds=None: contextlib.nullcontext())
    return sent


@pytest.fixture
def look(working: RunningService) -> Callable[..., dict[str, Any]]:
    """A function that makes all checks of `doctor` in this process, and returns what is not well, by code."""

    def found(role: str = "operator", contract: Any = working.contract, **environment: str) -> dict[str, Any]:
        variables = {**working.environment, "LIVENESS_DIRECTORY": str(working.logs), **environment}
        with mock.patch.dict(os.environ, variables):
            env = options.load("celery_aws.environment", contract.broker).Environment(contract, "development")
            return {finding.code: finding for finding in doctor.findings(env, role) if not finding.is_well}

    assert eventually(lambda: not found()), found()
    return found
