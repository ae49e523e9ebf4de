"""Pausing of queues on RabbitMQ: a marker for workers that start later, and remote control for those that run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import service
from ..brokers.rabbitmq import markers
from ..contract import Queue
from ..environment.rabbitmq import Environment, explained
from . import Pause


def paused(env: Environment) -> dict[str, Pause]:
    """Return the queues that are paused, by name."""
    return among(env, {each["name"]: each for each in env.ask("queues", env.virtual_host)})


def among(env: Environment, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Pause]:
    """Return the queues that are paused, by name, from all queues in the management API."""
    marked = {queue.name: found.get(markers.name(queue)) for queue in env.contract.queues}
    return {name: Pause.of(markers.read(each.get("arguments") or {})) for name, each in marked.items() if each}


def pause(env: Environment, queue: Queue) -> str:
    """Pause a queue."""
    with explained(), env.connect() as connection:
        markers.put(connection, queue, vars(Pause.now()))
    told = _told(env, queue, "cancel_consumer")
    return f"no more messages of {env.name(queue)} are taken by {told}; nor by workers that start later"


def resume(env: Environment, queue: Queue) -> str:
    """Resume a queue."""
    with explained(), env.connect() as connection:
        markers.remove(connection, queue)
    told = _told(env, queue, "add_consumer")
    return f"messages of {env.name(queue)} are taken by {told}; and by workers that start later"


def _told(env: Environment, queue: Queue, command: str) -> str:
    """Give the workers of a queue a command, and return which of them have done it."""
    worker = env.contract.worker_of(queue).name
    control: Any = service.app().control
    with explained():
        answers = control.broadcast(
            command,
            arguments={"queue": env.contract.celery_name(queue)},
            reply=True,
            pattern=f"{worker}@*",
            matcher="glob",
        )
    names = sorted(name for answer in answers or () for name, reply in answer.items() if "ok" in reply)
    return ", ".join(names) or "no worker, as none answered"
