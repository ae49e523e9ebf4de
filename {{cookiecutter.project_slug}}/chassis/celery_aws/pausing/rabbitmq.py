"""Pausing of queues on RabbitMQ: a marker for workers that start later, and remote control for those that run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import service
from ..brokers.rabbitmq import markers
from ..contract import Queue
from ..environment.rabbitmq import Environment, explained
from . import Pause


def among(env: Environment, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Pause]:
    """Return the queues that are paused, by name, from all queues in the management API."""
    marked = {queue.name: found.get(markers.name(queue)) for queue in env.contract.queues}
    return {name: Pause.of(markers.read(each.get("arguments") or {})) for name, each in marked.items() if each}


def pause(env: Environment, queue: Queue) -> str:
    """Pause a queue."""
    with explained(), env.connect() as connection:
        markers.put(connection, queue, vars(Pause.now()))
    return f"workers take no more messages of {env.name(queue)}, also those that start later; {_told(env, queue)}"


def resume(env: Environment, queue: Queue) -> str:
    """Resume a queue."""
    with explained(), env.connect() as connection:
        markers.remove(connection, queue)
    return f"workers take messages of {env.name(queue)}; {_told(env, queue)}"


def _told(env: Environment, queue: Queue) -> str:
    """Have all workers look for markers, and return which workers of a queue confirmed it within a second."""
    control: Any = service.app().control
    with explained():
        answers = control.broadcast("look_for_pauses", reply=True)
    name = env.contract.celery_name(queue)
    names = sorted(
        worker for answer in answers or () for worker, reply in answer.items() if name in reply.get("ok", ())
    )
    return f"confirmed by {', '.join(names)}" if names else "no worker has confirmed it"
