"""Scale-in protection on ECS: protects a busy worker, so that ECS stops idle ones.

Without it ECS may stop any worker. A task that takes longer than the soft shutdown would be
released, and start again from the beginning.
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import urllib.request
from typing import Any

from celery import bootsteps
from celery.worker import state

from ..contract import HAND_OVER_SECONDS

logger = logging.getLogger(__name__)

CHECK_EVERY_SECONDS = 5
TIMEOUT_SECONDS = 10


class Protection(bootsteps.StartStopStep):
    """Updates the protection in a separate thread: the ECS agent may be slow, and polls must not wait for it.

    https://docs.celeryq.dev/en/stable/userguide/extending.html
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, worker_consumer: Any) -> None:
        """Start when the worker starts to consume; outside ECS, do nothing."""
        agent = os.environ.get("ECS_AGENT_URI")
        if not agent:
            return
        longest = max(queue.hard_limit_seconds for queue in worker_consumer.app.contract.queues)
        guard = Guard(agent, longest + HAND_OVER_SECONDS)
        threading.Thread(target=guard.run, name="protection", daemon=True).start()


class Guard:
    """Sets and removes the scale-in protection of this ECS task."""

    def __init__(self, agent: str, longest_seconds: float) -> None:
        self.url = f"{agent}/task-protection/v1/state"
        # ECS accepts 1 to 2880 minutes. The expiry limits the protection of a worker that is stuck.
        self.minutes = min(2880, math.ceil(longest_seconds / 60) * 2)
        self.protected = False
        self.checks_left = 0
        """Checks until the protection is renewed."""

    def run(self) -> None:
        """Update the protection every `CHECK_EVERY_SECONDS`, for the life of the worker."""
        timer = threading.Event()
        while not timer.wait(CHECK_EVERY_SECONDS):
            self.update(busy=bool(state.reserved_requests))

    def update(self, *, busy: bool) -> None:
        """Protect a busy worker, renew that at half of its time, and remove it from an idle worker."""
        if busy:
            self.checks_left -= 1
            if self.checks_left <= 0 and self._put({"ProtectionEnabled": True, "ExpiresInMinutes": self.minutes}):
                self.protected, self.checks_left = True, self.minutes * 60 // 2 // CHECK_EVERY_SECONDS
        elif self.protected and self._put({"ProtectionEnabled": False}):
            self.protected, self.checks_left = False, 0

    def _put(self, wanted: dict[str, Any]) -> bool:
        """Send a state to the ECS agent; return whether it accepted. Errors are logged only."""
        request = urllib.request.Request(  # noqa: S310 - the address is the agent's
            self.url, json.dumps(wanted).encode(), {"Content-Type": "application/json"}, method="PUT"
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as http_response:  # noqa: S310
                response = json.load(http_response)
        except (OSError, ValueError) as error:
            logger.warning("scale-in protection of this worker not changed: %r", error)
            return False
        if not (accepted := "protection" in response):
            logger.warning("scale-in protection of this worker not changed: %s", response)
        return accepted


STEPS = (Protection,)
"""The bootsteps to add to a worker."""
