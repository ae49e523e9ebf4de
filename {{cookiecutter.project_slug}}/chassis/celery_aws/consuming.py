"""Celery's commands that have a worker consume a queue, or stop to, for queues of the contract only.

Celery answers "ok" whatever the name. It would create another queue on RabbitMQ; on SQS, where there is
none to consume, every worker would end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from celery.worker.control import Panel

COMMANDS = ("add_consumer", "cancel_consumer")


def consume(command: Callable[..., dict[str, str]], state: Any, queue: str, **options: Any) -> dict[str, str]:
    """Carry out a command, or answer that there is no such queue.

    Args:
        command: Celery's own.
        state: the worker's state: its application and consumer.
        queue: the queue's name in Celery.
        options: what the command takes besides.
    """
    known = [state.app.contract.celery_name(each) for each in state.app.contract.queues]
    if queue not in known:
        return {"error": f"no queue {queue!r} in contract.json; queues: {', '.join(known)}"}
    return command(state, queue, **options)


Panel.data.update({name: partial(consume, Panel.data[name]) for name in COMMANDS})
