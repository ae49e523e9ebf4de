"""Celery's remote control on SQS, by a table that workers read; without the table, every command is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from celery.app import control
from kombu.utils.functional import maybe_list

from ... import delivery, errors
from ...aws import dynamodb_client
from .control_table import ANSWER_SECONDS, ControlTable

OF_EVENTS = frozenset({"disable_events", "election", "enable_events", "heartbeat", "hello"})
"""Commands about events or between workers, which need a broadcast."""

REVOKES = frozenset({"revoke", "terminate"})

MAX_REVOKED = 1_000
"""Most ids of one command: workers read all revoked tasks with each poll."""


# The published type lacks what is overridden here.
BaseControl: Any = control.Control


class Control(BaseControl):  # type: ignore[misc]
    """Writes commands to the table of remote control, and waits for the answers of workers."""

    @cached_property
    def table(self) -> ControlTable:
        """The table of remote control."""
        return ControlTable(
            dynamodb_client(self.app.contract.region), self.app.conf.broker_transport_options["control_table"]
        )

    def broadcast(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: Callable[[Any], object] | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra: Any,
    ) -> Any:
        """Send a command to workers; see `celery.app.control.Control.broadcast`.

        Workers read commands every two seconds. So `timeout`, in seconds, is five at least; it ends as soon as
        all of `destination`, or `limit` workers, have answered. `revoke` and `terminate` without destination
        or pattern also apply to workers that start later, until the messages would have expired.

        Raises:
            RefusedError: more than `MAX_REVOKED` tasks are to be revoked.
            RemoteControlUnavailableError: the contract has no `remote_control`, or the command is about events;
                unless Celery itself revokes the rest of a failed chord.
            ValueError: `destination` is neither a list nor a tuple.
            botocore.exceptions.ClientError: DynamoDB refused a request.
        """
        attempt = delivery.current
        if attempt is not None and attempt.store_until:
            return None
        self._check(command)
        if destination is not None and not isinstance(destination, (list, tuple)):
            raise ValueError(f"destination must be a list or tuple of host names, not {destination!r}")
        arguments = {**(arguments or {}), **extra}
        if command in REVOKES and not destination and not pattern:
            task_ids = maybe_list(arguments["task_id"])
            if len(task_ids) > MAX_REVOKED:
                raise errors.RefusedError(
                    f"{len(task_ids)} tasks are more than the {MAX_REVOKED} that one command revokes, because workers "
                    f"read all revoked tasks every two seconds; pause the queue instead, and let tasks check themselves"
                )
            self.table.revoke(task_ids, max(map(self._kept_seconds, self.app.contract.queues)))
        asked = {"method": command, "arguments": arguments, "destination": destination}
        found = self.table.ask(
            {**asked, "pattern": pattern, "matcher": matcher} if pattern and matcher else asked,
            timeout_seconds=max(timeout or 0, ANSWER_SECONDS) if reply else 0,
            limit=limit or (len(destination) if destination else None),
            callback=callback,
        )
        return found if reply else None

    def _check(self, command: str) -> None:
        """Raise `RemoteControlUnavailableError` if a command cannot reach workers."""
        if not self.app.contract.remote_control:
            raise errors.RemoteControlUnavailableError(
                f"{command!r} was not sent: SQS has no broadcast, and contract.json has no remote_control. Add "
                f'"remote_control": true, so that workers read commands from a table of DynamoDB; outside of '
                f"`make dev`, apply Terraform then. See 'Remote control' in docs/delivery.md"
            )
        if command in OF_EVENTS:
            raise errors.RemoteControlUnavailableError(f"{command!r} was not sent: SQS has no broadcast for events")

    def _kept_seconds(self, queue: Any) -> float:
        """Return how long a message can wait in a queue, in seconds."""
        return float(queue.retention_seconds + self.app.longest_countdown_seconds(queue))
