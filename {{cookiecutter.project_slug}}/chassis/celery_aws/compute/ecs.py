"""Asks ECS not to stop this worker while it works, so that scale-in takes idle ones.

Without it ECS stops any: a task that takes longer than the soft shutdown would be given back and done again from its
beginning. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html
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

LOOK_SECONDS = 5
TIMEOUT_SECONDS = 10


class Protection(bootsteps.StartStopStep):
    """Asks in a thread of its own: the agent may take its time, and polls must not wait for it.

    https://docs.celeryq.dev/en/stable/userguide/extending.html
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, worker_consumer: Any) -> None:
        """Begin when the worker has begun to consume; elsewhere than on ECS, do nothing."""
        agent = os.environ.get("ECS_AGENT_URI")
        if not agent:
            return
        longest = max(queue.hard_limit_seconds for queue in worker_consumer.app.contract.queues)
        guard = Guard(agent, longest + HAND_OVER_SECONDS)
        threading.Thread(target=guard.watch, name="protection", daemon=True).start()


class Guard:
    """Knows whether this ECS task is protected, and changes that."""

    def __init__(self, agent: str, longest_seconds: float) -> None:
        self.url = f"{agent}/task-protection/v1/state"
        # ECS takes 1 to 2880 minutes. A worker that dies must not stay protected for longer.
        self.minutes = min(2880, math.ceil(longest_seconds / 60) * 2)
        self.protected = False
        self.looks_left = 0

    def watch(self) -> None:
        """Look again and again, for as long as the worker lives."""
        pause = threading.Event()
        while not pause.wait(LOOK_SECONDS):
            self.look(busy=bool(state.reserved_requests))

    def look(self, *, busy: bool) -> None:
        """Protect a busy worker, anew when half of the time is over, and let go of an idle one."""
        if busy:
            self.looks_left -= 1
            if self.looks_left <= 0 and self._ask({"ProtectionEnabled": True, "ExpiresInMinutes": self.minutes}):
                self.protected, self.looks_left = True, self.minutes * 60 // 2 // LOOK_SECONDS
        elif self.protected and self._ask({"ProtectionEnabled": False}):
            self.protected, self.looks_left = False, 0

    def _ask(self, wanted: dict[str, Any]) -> bool:
        """Tell the agent; that it says no must not stop the work."""
        request = urllib.request.Request(  # noqa: S310 - the address is the agent's
            self.url, json.dumps(wanted).encode(), {"Content-Type": "application/json"}, method="PUT"
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
                answered = json.load(answer)
        except (OSError, ValueError) as error:
            logger.warning("ECS does not change the protection of this worker: %r", error)
            return False
        if not (given := "protection" in answered):
            logger.warning("ECS does not change the protection of this worker: %s", answered)
        return given


STEPS = (Protection,)
"""What to add to a worker."""
