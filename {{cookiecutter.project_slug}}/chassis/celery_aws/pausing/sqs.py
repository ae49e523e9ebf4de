"""Pausing of queues on SQS, by the table of remote control."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..brokers.sqs.control_table import ControlTable
from ..commands import Failure
from ..contract import Queue
from ..contract.model import CONTROL_POLL_SECONDS
from ..environment.sqs import Environment, named
from . import Pause, is_available


def paused(env: Environment) -> dict[str, Pause]:
    """Return the queues that are paused, by name; none without `remote_control`."""
    if not is_available(env.contract):
        return {}
    with _table(env) as table:
        return {name: Pause.of(stored) for name, stored in table.state().paused.items()}


def pause(env: Environment, queue: Queue) -> str:
    """Pause a queue.

    Raises:
        Failure: the contract has no `remote_control`.
    """
    with _table(env) as table:
        table.pause(queue.name, vars(Pause.now()))
    name = env.name(queue)
    return f"within {CONTROL_POLL_SECONDS} seconds, workers take no more messages of {name}; running tasks go on"


def resume(env: Environment, queue: Queue) -> str:
    """Resume a queue.

    Raises:
        Failure: the contract has no `remote_control`.
    """
    with _table(env) as table:
        table.resume(queue.name)
    return f"within {2 * CONTROL_POLL_SECONDS} seconds, workers take messages of {env.name(queue)}"


@contextlib.contextmanager
def _table(env: Environment) -> Iterator[ControlTable]:
    """Yield the table of remote control.

    Raises:
        Failure: the contract has no `remote_control`, or the table does not exist.
    """
    if not is_available(env.contract):
        raise Failure(
            'contract.json has no remote_control, so queues cannot be paused. Add "remote_control": true; outside of '
            "`make dev`, apply Terraform then. Or set max of the queue's worker to 0"
        )
    with named(f"the table {env.control_table} of remote control"):
        yield ControlTable(env.client("dynamodb"), env.control_table)
