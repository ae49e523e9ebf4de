"""Scale-in protection on ECS: keeps ECS from interrupting long tasks, without holding up deployments.

When ECS scales in or deploys, it stops an unprotected worker with SIGTERM, and kills it after the
stop timeout, which is at most 120 s on Fargate. A task that needs longer is released and starts
again. Protection prevents that, but a deployment cannot end before it: ECS starts the new workers
and waits for the protected ones.
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html

A worker cannot ask whether it is being replaced: that needs a permission and a way to the API of
ECS. So protection is for tasks, not for a busy worker, and it ends with them:

- A task is protected once it has run as long as the soft shutdown. A younger one loses little.
- Protection is never renewed. It ends when the tasks that it was set for have ended, at the latest
  with their hard limits, even if the worker has taken other tasks meanwhile.
- After that, the worker is unprotected for as long as a task must run to be protected. If ECS wants
  to stop it, it does so then. The worker stops taking messages, and finishes or releases its tasks.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
import urllib.request
from collections.abc import Iterable
from http.client import HTTPException
from typing import Any, NamedTuple

from celery import bootsteps
from celery.worker import state

from ..contract import HAND_OVER_SECONDS

logger = logging.getLogger(__name__)

CHECK_EVERY_SECONDS = 5
TIMEOUT_SECONDS = 10
RETRY_SECONDS = 60
"""Delay after a request that failed or was refused."""
PROTECT_AFTER_SECONDS = 60
"""Minimum age of tasks to protect: limits the requests of a worker with many short tasks."""


class Protection(bootsteps.StartStopStep):
    """Updates the protection in a separate thread: the ECS agent may be slow, and polls must not wait for it.

    https://docs.celeryq.dev/en/stable/userguide/extending.html
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)
    guard: Guard | None = None

    def start(self, worker_consumer: Any) -> None:
        """Start when the worker starts to consume, also after a lost connection; outside ECS, do nothing."""
        agent = os.environ.get("ECS_AGENT_URI")
        app = worker_consumer.app
        age_seconds = max(PROTECT_AFTER_SECONDS, app.contract.soft_shutdown_seconds)
        longest = max(queue.hard_limit_seconds for queue in app.queues_consumed)
        if not agent or longest <= age_seconds:
            return
        if self.guard is None:
            self.guard = Guard(agent, age_seconds)
            threading.Thread(target=self.guard.run, name="protection", daemon=True).start()
        # In the event loop, which is where the set of requests changes.
        worker_consumer.timer.call_repeatedly(CHECK_EVERY_SECONDS, self.guard.look)


class Running(NamedTuple):
    """A task that is running. Times are monotonic."""

    task_id: str
    began: float
    ends_by: float
    """When it has ended, at the latest."""


class Guard:
    """Sets and removes the scale-in protection of this ECS task.

    Args:
        agent: URL of the ECS agent.
        age_seconds: age from which tasks are protected, and time without protection afterwards.
    """

    def __init__(self, agent: str, age_seconds: float) -> None:
        self.url = f"{agent}/task-protection/v1/state"
        self.age_seconds = age_seconds
        self.running: frozenset[Running] = frozenset()
        self.protected: frozenset[Running] = frozenset()
        """The tasks that the protection was set for; empty without protection."""
        self.quiet_until = 0.0
        """Monotonic time until which nothing is requested."""

    def look(self) -> None:
        """Note which tasks are running."""
        self.running = running_tasks(state.active_requests)

    def run(self) -> None:
        """Update the protection every `CHECK_EVERY_SECONDS`, for the life of the worker."""
        timer = threading.Event()
        while not timer.wait(CHECK_EVERY_SECONDS):
            self.update(self.running, time.monotonic())

    def update(self, running: frozenset[Running], now: float) -> None:
        """Protect tasks that have run for `age_seconds`, and end the protection when they have ended."""
        if now < self.quiet_until:
            return
        if self.protected:
            remaining = [task for task in self.protected & running if now < task.ends_by]
            if not remaining:
                self._end(now)
        elif aged := frozenset(task for task in running if now - task.began >= self.age_seconds):
            self._protect(aged, now)

    def _protect(self, tasks: frozenset[Running], now: float) -> None:
        seconds = max(task.ends_by for task in tasks) - now
        # ECS accepts 1 to 2880 minutes.
        minutes = max(1, min(2880, math.ceil(seconds / 60)))
        if self._put({"ProtectionEnabled": True, "ExpiresInMinutes": minutes}):
            self.protected = tasks
        else:
            self.quiet_until = now + RETRY_SECONDS

    def _end(self, now: float) -> None:
        if self._put({"ProtectionEnabled": False}):
            self.protected = frozenset()
            self.quiet_until = now + self.age_seconds
        else:
            self.quiet_until = now + RETRY_SECONDS

    def _put(self, wanted: dict[str, Any]) -> bool:
        """Send a state to the ECS agent; return whether it accepted. Errors are logged only."""
        request = urllib.request.Request(  # noqa: S310 - the address is the agent's
            self.url, json.dumps(wanted).encode(), {"Content-Type": "application/json"}, method="PUT"
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as http_response:  # noqa: S310
                response = json.load(http_response)
        except (OSError, ValueError, HTTPException) as error:
            logger.warning("scale-in protection of this worker not changed: %r", error)
            return False
        if not isinstance(response, dict):
            logger.warning("scale-in protection of this worker not changed: %r", response)
            return False
        failure = response.get("failure")
        if not failure and "protection" in response:
            return True
        # More workers would be protected than are desired: a deployment or scale-in waits for some
        # of them. Both old and new workers get this answer, so it does not tell which one is to go.
        # Without protection, ECS can stop this worker, which then finishes or releases its tasks.
        if isinstance(failure, dict) and failure.get("Reason") == "DEPLOYMENT_BLOCKED":
            logger.info("scale-in protection refused during a deployment or scale-in; this worker may be stopped")
        else:
            logger.warning("scale-in protection of this worker not changed: %s", response)
        return False


def running_tasks(requests: Iterable[Any]) -> frozenset[Running]:
    """Return the tasks of requests that a task process has started."""
    return frozenset(
        Running(request.id, request.accepted_at, request.accepted_at + request.time_limits[0] + HAND_OVER_SECONDS)
        for request in list(requests)
        if getattr(request, "accepted_at", None) is not None
    )


STEPS = (Protection,)
"""The bootsteps to add to a worker."""
