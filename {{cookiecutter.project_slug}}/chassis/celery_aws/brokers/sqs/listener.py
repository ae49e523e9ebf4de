"""What a worker does for remote control on SQS: it reads a table, pauses queues, revokes tasks and answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from celery import bootsteps
from celery.utils.collections import AttributeDict, LimitedSet
from celery.utils.functional import pass1
from celery.worker import state
from celery.worker.control import Panel
from kombu import pidbox

from ...contract.model import CONTROL_POLL_SECONDS
from .calls import Answer, Calls, Failure
from .control_table import COMMAND_SECONDS, WORKERS, State, answer, delete, query, state_of

logger = logging.getLogger(__name__)

PERMANENT = {
    "AccessDeniedException": "allow dynamodb:Query, PutItem and DeleteItem on this table for this role or user",
    "ResourceNotFoundException": "create the table with `make apply`, or check CONTROL_TABLE",
}
"""Errors after which a worker that has never read the table ends, and how to fix each."""

REVOKED_AGAIN_SECONDS = 3_600
"""How often revoked tasks are told to Celery again, which forgets them after three hours."""

DELETIONS_PER_POLL = 25
"""Maximum number of expired items that a worker deletes at once; many revoked tasks may expire together."""

# The published types lack what is used here.
BaseNode: Any = pidbox.Node


class Listening(bootsteps.StartStopStep):
    """Starts to read the table when the worker starts to consume."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    obj: Any = None

    def start(self, worker_consumer: Any) -> None:
        """Read the table as soon as the worker consumes; until it has been read, the channel polls no queue."""
        self.obj = Listener(worker_consumer)
        worker_consumer.hub.call_later(0, self.obj.poll)


class Node(BaseNode):  # type: ignore[misc]
    """Runs commands as Celery's own node does, and leaves its answers to a listener."""

    def __init__(self, listener: Listener, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._listener = listener

    def reply(self, data: Any, exchange: str, routing_key: str, ticket: str, **options: Any) -> None:
        """Write the answer to a command."""
        self._listener.answer(routing_key, data)


class Listener:
    """Reads the table every `CONTROL_POLL_SECONDS`, on the worker's event loop."""

    def __init__(self, consumer: Any) -> None:
        app = consumer.app
        self._channel = consumer.task_consumer.channel
        self._channel.is_controlled = True
        self._hub = consumer.hub
        self._table = app.conf.broker_transport_options["control_table"]
        self._hostname = consumer.hostname
        self._names = {queue.name: app.contract.celery_name(queue) for queue in app.contract.queues}
        self._own = {app.contract.celery_name(queue) for queue in app.queues_consumed}
        self._calls = Calls(self._hub, app.contract.region, "dynamodb")
        known = AttributeDict(app=app, hostname=consumer.hostname, consumer=consumer, tset=pass1)
        self._node = Node(self, consumer.hostname, known, handlers=Panel.data, mailbox=app.control.mailbox)
        self._has_read = False
        self._fails = False
        self._paused: frozenset[str] = frozenset()
        self._read_before: frozenset[str] = frozenset()
        """Queues that were paused at the last poll; they stay so for another one, which may read an older state."""
        # Not only those of the last poll, which may have read an older state than the one before.
        self._seen: Any = LimitedSet(expires=2 * COMMAND_SECONDS)
        """Ids of the commands that were carried out, or were there before this worker."""
        self._revoked: set[str] = set()
        self._revoked_at = time.monotonic()

    def stop(self) -> None:
        """Read the table no longer, as the worker is stopping or connects again."""
        self._channel.is_controlled = False

    def poll(self, read: Sequence[Any] = (), after: Any = None) -> None:
        """Read the table, one page after the other."""
        if self._channel.is_controlled:
            self._calls.call("Query", query(self._table, WORKERS, after), partial(self._polled, read))

    def _polled(self, read: Sequence[Any], outcome: Answer | Failure) -> None:
        if isinstance(outcome, Failure):
            self._failed(outcome)
        else:
            items = [*read, *outcome.get("Items", ())]
            if after := outcome.get("LastEvaluatedKey"):
                self.poll(items, after)
                return
            if self._fails:
                logger.info("table %s can be read again", self._table)
            self._fails = False
            try:
                self._apply(state_of(items))
            except Exception:  # The next poll must follow, whatever somebody has written into the table.
                logger.exception("table %s has something that cannot be processed", self._table)
        self._hub.call_later(CONTROL_POLL_SECONDS, self.poll)

    def _failed(self, failure: Failure) -> None:
        if failure.code in PERMANENT and not self._has_read:
            self._channel.give_up(f"read table {self._table}", failure.text, PERMANENT[failure.code])
        elif not self._fails:
            logger.warning(
                "table %s cannot be read: %s. Until it can, %s",
                self._table,
                failure,
                "paused queues stay paused" if self._has_read else "no queue is consumed",
            )
        self._fails = True

    def _apply(self, found: State) -> None:
        if not self._has_read:
            self._seen.update(list(found.commands))
        self._has_read = True
        read = frozenset(self._names[name] for name in found.paused if name in self._names)
        paused, self._read_before = read | self._read_before, read
        for name in sorted((paused - self._paused) & self._own):
            logger.warning("queue %s is paused", name)
        for name in sorted((self._paused - paused) & self._own):
            logger.warning("queue %s is resumed", name)
        self._paused = paused
        self._channel.pause(paused)
        if time.monotonic() - self._revoked_at > REVOKED_AGAIN_SECONDS:
            self._revoked, self._revoked_at = set(), time.monotonic()
        state.revoked.update(found.revoked - self._revoked)
        self._revoked = found.revoked
        for key in found.expired[:DELETIONS_PER_POLL]:
            self._calls.call("DeleteItem", delete(self._table, WORKERS, key), self._written)
        for command_id, command in found.commands.items():
            if command_id not in self._seen:
                self._seen.add(command_id)
                self._channel.soon(self._run, command)

    def _run(self, command: dict[str, Any]) -> None:
        try:
            self._node.handle_message(command)
        except Exception:  # It must not end the worker; WorkerShutdown of the command `shutdown` does.
            logger.exception("command %s failed", command.get("method"))

    def answer(self, command_id: str, data: Any) -> None:
        """Write an answer."""
        self._calls.call("PutItem", answer(self._table, command_id, self._hostname, data), self._written)

    def _written(self, outcome: Answer | Failure) -> None:
        if isinstance(outcome, Failure):
            logger.warning("table %s cannot be written: %s", self._table, outcome)
