"""Sends the example tasks to every queue repeatedly, and prints their results."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery import Signature

from .. import service
from ..contract import Contract, read
from ..sending import Service
from . import emulator

INTERVAL_SECONDS = 5


def main() -> None:
    """Send until Ctrl-C or SIGTERM; without examples only wait, so that `make dev` reports no process that ended.

    Raises:
        SystemExit: a task cannot be sent, for example because its queue was deleted.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    contract = read(emulator.CONTRACT)
    service.use(contract.package)
    module = f"{contract.package}.examples"
    if not service.has_module(module):
        print(f"No examples to send. Send your own tasks with `{contract.service} send`.", flush=True)
        threading.Event().wait()
    app, examples = service.app(), importlib.import_module(module).examples
    if line := next(filter(None, (command(contract, example) for example in examples())), ""):
        print(f"Sends the examples to every queue. To send one yourself: {line}", flush=True)
    for turn in itertools.count(1):
        sent = [(queue, example, send(queue, example, turn)) for queue, example in on_every_queue(app, examples)]
        for queue, example, result in sent:
            print(f"{queue}: {example!r} -> {outcome(contract, result)}", flush=True)
        time.sleep(INTERVAL_SECONDS)


def command(contract: Contract, example: Signature[Any]) -> str:
    """Return the command that sends an example; empty if `send` cannot: a chain, or keyword arguments."""
    if getattr(example, "tasks", None) or example.kwargs:
        return ""
    arguments = (value if isinstance(value, str) else json.dumps(value) for value in example.args)
    group = ["--group", "example"] if any(queue.fifo for queue in contract.queues) else []
    return shlex.join([contract.service, "send", contract.short_name(str(example.task)), *arguments, *group])


def send(queue: str, example: Signature[Any], turn: int) -> Any:
    """Send an example and return its result.

    Raises:
        SystemExit: it cannot be sent; says why, and what to do.
    """
    try:
        return example.apply_async(MessageGroupId=f"example-{turn}")
    except Exception as error:  # noqa: BLE001 - each broker has errors of its own
        sys.exit(
            f"cannot send {example!r} to {queue}: {type(error).__name__}: {error}\n"
            "The queues are created when `make dev` starts. If one was deleted, start it again."
        )


def on_every_queue(
    app: Service[Any], examples: Callable[[], Iterable[Signature[Any]]]
) -> Iterator[tuple[str, Signature[Any]]]:
    """Yield each example once for every queue; those of tasks in a queue's module, for that queue only.

    Args:
        app: the service.
        examples: returns tasks and chains of tasks, new ones at each call.
    """
    for queue in app.contract.queues:
        for example in examples():
            steps: list[Signature[Any]] = getattr(example, "tasks", None) or [example]
            queues = [app.queue_of_task(str(step.task)) for step in steps]
            for step, own in zip(steps, queues, strict=True):
                if own is None:
                    step.set(queue=app.contract.celery_name(queue))
            if queues[0] in (None, queue):
                yield queue.name, example


def outcome(contract: Any, result: Any) -> str:
    """Wait for a result, and return it as text."""
    if contract.results == "none":
        return "sent"
    try:
        return repr(result.get(timeout=30))
    except Exception as error:  # noqa: BLE001 - `get` raises the exception of the task
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
    # Without clean-up: Celery would unsubscribe from results at a Redis that is being stopped.
    os._exit(0)
