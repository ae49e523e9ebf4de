"""The depth of the queues, from the management API of RabbitMQ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..cloudwatch import Series
from ..contract import Queue
from ..environment import DEVELOPMENT
from ..environment.rabbitmq import BrokerError, Environment, explained
from ..pausing import Pause
from ..pausing import rabbitmq as pausing

DELAYED = "celery_delayed_"
"""Prefix of the names of Celery's queues for delayed messages."""


@dataclass(frozen=True)
class Depth:
    """The depth of a queue; counts of a queue that does not exist are None."""

    queue: str
    waiting: int | None
    in_flight: int | None
    workers: int | None
    """Number of consumers."""
    dead: int | None
    delayed_of_all: int
    """Delayed messages of all queues together, including those in a backoff."""
    paused: Pause | None = None
    missing: tuple[str, ...] = ()
    """Which of the queue and its dead-letter queue do not exist, by their names at the broker."""

    @property
    def is_well(self) -> bool:
        """Whether it exists and is not paused, there are no dead-letter messages, and consumers if messages wait."""
        return not (self.missing or self.paused or self.dead or (self.waiting and not self.workers))


def depths(env: Environment) -> list[Depth]:
    """Return the depth of every queue.

    Raises:
        BrokerError: the management API failed, or no queue exists.
    """
    found = {each["name"]: each for each in env.ask("queues", env.virtual_host)}
    delayed = sum(count(each, "messages") for name, each in found.items() if name.startswith(DELAYED))
    paused = pausing.among(env, found)
    names = [env.name(queue) for queue in env.contract.queues]
    if not found.keys() & set(names):
        raise BrokerError(
            f"there is no queue {names[0]} in the virtual host {env.virtual_host}. Check BROKER_URL; workers and "
            f"producers declare the queues when they connect"
        )
    return [_depth(env, queue, found, delayed, paused.get(queue.name)) for queue in env.contract.queues]


def _depth(env: Environment, queue: Queue, found: dict[str, Any], delayed: int, pause: Pause | None) -> Depth:
    name, dead = env.name(queue), env.name(queue, dead=True)
    live = found.get(name)
    return Depth(
        queue.name,
        live and count(live, "messages_ready"),
        live and count(live, "messages_unacknowledged"),
        live and count(live, "consumers"),
        count(found[dead], "messages") if dead in found else None,
        delayed,
        pause,
        tuple(each for each in (name, dead) if each not in found),
    )


def purge(env: Environment, queue: Queue) -> None:
    """Delete all messages that wait in a queue of this machine's broker.

    Names of queues do not contain the environment, so the one that a command is given does not tell which broker it is.

    Raises:
        BrokerError: the broker is another, or refused.
    """
    set_environment = os.environ.get("ENVIRONMENT", DEVELOPMENT)
    if urlsplit(env.variables.broker_url).scheme == "amqps" or set_environment != DEVELOPMENT:
        raise BrokerError(
            f"nothing was deleted: the environment variables are those of another environment (ENVIRONMENT is "
            f"{set_environment}). Read those of `make dev`: . ./.env.development"
        )
    with explained(), env.connect() as connection:
        connection.channel().purge(env.name(queue))


def history(env: Environment) -> dict[str, Series]:
    """Return nothing: for RabbitMQ 4, Amazon MQ records no depth of single queues."""
    return {}


def count(queue: Mapping[str, Any], what: str) -> int:
    """Return a count of a queue from the management API."""
    return int(queue.get(what) or 0)  # A new queue has no counts yet.
