"""Fixtures for the tests of a service; its conftest.py says `pytest_plugins = ["celery_aws.testing.plugin"]`."""

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
    """A task that was delivered has not been done: it is in the dead-letter queue, or the time is over."""


def outcome_in(log: str, task_id: str) -> str:
    """Return what a task ended with at last, by a worker's log; nothing while it has not."""
    for line in reversed(log.splitlines()):
        if f'"{task_id}"' in line and line.startswith("{"):
            outcome = str(json.loads(line).get("outcome", ""))
            if outcome in (*DONE, *FAILED):
                return outcome
    return ""


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The service on the emulator, with a worker for each queue."""
    services.use(read(emulator.PROJECT / "contract.json").package)
    running: RunningService
    with running_service(tmp_path_factory.mktemp("logs")) as running:
        for queue in running.contract.queues:
            running.start_worker(queue.name)
        yield running


@pytest.fixture
def deliver(service: RunningService) -> Callable[..., Any]:
    """A function that has a worker do a task, and returns what the task returns."""

    def deliver(
        task: celery.Task[Any, Any] | str,
        *args: Any,
        group: str = "test",
        timeout_seconds: float = TIMEOUT_SECONDS,
        **kwargs: Any,
    ) -> Any:
        """Send a task, and wait until a worker has done it.

        Args:
            task: the task, or its name, `<queue>.<function>`.
            args: its positional arguments.
            group: its message group.
            timeout_seconds: how long to wait.
            kwargs: its keyword arguments.

        Returns:
            What it returned; nothing where the service keeps no results.

        Raises:
            NotDoneError: it was dead-lettered, or is not done in time; the message has the worker's log.
            Exception: what the task raised at last, where the service keeps results.
        """
        with service.reached():
            known = services.app()  # It may have been made for another environment than the emulator's.
            found = known.find(task) if isinstance(task, str) else task
            queue = known.queue_of_task(found.name) or service.contract.default_queue
            options = {"queue": service.contract.celery_name(queue), "MessageGroupId": group}
            result = service.app.send_task(found.name, args, kwargs, **options)
            if service.contract.results != "none":
                if eventually(result.ready, timeout_seconds):
                    return result.get()
            elif eventually(lambda: outcome_in(service.log(queue.name), result.id), timeout_seconds) in DONE:
                return None
            raise NotDoneError(f"{found.name} was not done within {timeout_seconds} s:\n{service.log(queue.name)}")

    return deliver
