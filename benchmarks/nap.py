"""What a task of the benchmarks does, whoever runs it. Needs the standard library alone, so that everyone can."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path


def write_down(*what: float | str) -> None:
    """Add a line to what tasks have written down."""
    with Path(os.environ["NAPS"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")


def nap(seconds: float, group: str, number: int) -> None:
    """Work for some time, and write down when."""
    began = time.monotonic()
    time.sleep(seconds)
    write_down(began, time.monotonic(), group, number)


def time_sending(send: Callable[[int], None], count: int) -> None:
    """Send so many tasks, and print how many seconds that took, and how many of them the processor worked."""
    send(0)  # Everything is imported.
    began, worked = time.monotonic(), time.process_time()
    send(count)
    print(json.dumps([time.monotonic() - began, time.process_time() - worked]))
