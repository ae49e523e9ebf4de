"""Sends the `examples()` of every queue repeatedly, and prints their results."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import signal
import time
from typing import Any

from ..contract import read
from . import emulator

INTERVAL_SECONDS = 5


def main() -> None:
    """Send until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    contract = read(emulator.CONTRACT)
    modules = {
        queue.name: importlib.import_module(f"{contract.package}.tasks.{queue.module}") for queue in contract.queues
    }
    for turn in itertools.count(1):
        sent = []
        for queue, module in modules.items():
            for example in getattr(module, "examples", tuple)():
                sent.append((queue, example, example.apply_async(MessageGroupId=f"example-{turn}")))
        for queue, example, result in sent:
            print(f"{queue}: {example!r} -> {outcome(contract, result)}", flush=True)
        time.sleep(INTERVAL_SECONDS)


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
