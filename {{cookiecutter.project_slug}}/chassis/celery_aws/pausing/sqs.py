"""Pausing of queues on SQS, by the table of remote control."""

from __future__ import annotations

from ..brokers.sqs.control_table import ControlTable
from ..commands import Failure
from ..contract import Queue
from ..contract.model import CONTROL_POLL_SECONDS
from ..environment.sqs import Environment
from . import Pause, is_available


def paused(env: Environment) -> dict[str, Pause]:
    """Return the queues that are paused, by name; none without `remote_control`."""
    if not is_available(env.contract):
        return {}
    return {name: Pause.of(stored) for name, stored in _table(env).state().paused.items()}


def pause(env: Environment, queue: Queue) -> str:
    """Pause a queue.

    Raises:
        Failure: the contract has no `remote_control`.
    """
    _table(env).pause(queue.name, vars(Pause.now()))
    name = env.name(queue)
    return f"within {CONTROL_POLL_SECONDS} seconds, workers take no more messages of {name}; running tasks go on"


def resume(env: Environment, queue: Queue) -> str:
    """Resume a queue.

    Raises:
        Failure: the contract has no `remote_control`.
    """
    _table(env).resume(queue.name)
    return f"within {2 * CONTROL_POLL_SECONDS} seconds, workers take messages of {env.name(queue)}"


def _table(env: Environment) -> ControlTable:
    if not is_available(env.contract):
        raise Failure(
            'contract.json has no remote_control, so queues cannot be paused. Add "remote_control": true; outside of '
            "`make dev`, apply Terraform then. Or set max of the queue's worker to 0"
        )
    return ControlTable(env.client("dynamodb"), env.control_table)
