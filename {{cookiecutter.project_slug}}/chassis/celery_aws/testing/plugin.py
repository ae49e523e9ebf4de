"""Fixtures for tests of a service; put `pytest_plugins = ["celery_aws.testing.plugin"]` into its conftest.py."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import celery
import pytest

from .. import service as services
from ..contract import ContractError, read
from ..dev import emulator
from .running import RunningService, eventually, running_service, unreachable

TIMEOUT_SECONDS = 30

DONE = ("succeeded", "ignored")
FAILED = ("dead_lettered", "rejected", "revoked")


# At once, because test modules may import the application. A test that sends needs the fixture `service`.
with contextlib.suppress(ContractError):  # The tests report it.
    os.environ.update(unreachable(read(emulator.PROJECT / "contract.json")))


class NotDoneError(AssertionError):
    """A task was dead-lettered, or was not done in time."""


def outcome_in(log: str, task_id: str) -> str:
    """Return the final outcome of a task from a worker's log; empty if there is none yet."""
    for line in reversed(log.splitlines()):
        if f'"{task_id}"' in line and line.startswith("{"):
            outcome = str(json.loads(line).get("outcome", ""))
            if outcome in (*DONE, *FAILED):
                return outcome
    return ""


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The service on the emulator, with all its workers."""
    services.use(read(emulator.PROJECT / "contract.json").package)
    running: RunningService
    with running_service(tmp_path_factory.mktemp("logs")) as running:
        for worker in running.contract.workers:
            running.start_worker(worker.name)
        yield running


@pytest.fixture
def deliver(service: RunningService) -> Callable[..., Any]:
    """A function that runs a task in a worker and returns its result."""

    def deliver(
        task: celery.Task[Any, Any] | str,
        *args: Any,
        group: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        **kwargs: Any,
    ) -> Any:
        """Send a task, and wait until a worker has run it.

        Args:
            task: the task, or its name, `<module>.<function>`.
            args: its positional arguments.
            group: its message group; by default the task's own, or else `test`.
            timeout_seconds: how long to wait.
            kwargs: its keyword arguments.

        Returns:
            The result of the task; None if the service has no result backend.

        Raises:
            NotDoneError: the task was dead-lettered or not done in time; the message has the worker's log.
            Exception: the exception of the task, if the service has a result backend.
        """
        with service.reached():
            known = services.app()  # Only for names and routes: it may use other environment variables.
            found = known.find(task) if isinstance(task, str) else task
            queue = known.queue_of_task(found.name) or service.contract.default_queue
            worker = service.contract.worker_of(queue).name
            options = {"queue": service.contract.celery_name(queue)}
            if group or not getattr(found, "message_group", None):
                options["MessageGroupId"] = group or "test"
            result = service.app.send_task(found.name, args, kwargs, **options)
            if service.contract.results != "none":
                if eventually(result.ready, timeout_seconds):
                    return result.get()
            elif eventually(lambda: outcome_in(service.log(worker), result.id), timeout_seconds) in DONE:
                return None
            raise NotDoneError(f"{found.name} was not done within {timeout_seconds} s:\n{service.log(worker)}")

    return deliver
