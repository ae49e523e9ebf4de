"""The tasks that every worker of the benchmarks runs, and how they are sent."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from celery import shared_task


def write_down(*what: float | str) -> None:
    """Add a line to what tasks have written down."""
    with Path(os.environ["NAPS"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")


@shared_task(name="naps.nap")
def nap(seconds: float, group: str, number: int) -> None:
    """Work for some time, and write down when."""
    began = time.monotonic()
    time.sleep(seconds)
    write_down(began, time.monotonic(), group, number)


@shared_task(name="naps.long_nap")
def long_nap(seconds: float, group: str, number: int) -> None:
    """Write down when work begins, and the process id of the worker; then work for some time."""
    write_down(time.monotonic(), os.getppid())
    time.sleep(seconds)


def send(how: str, task: str, count: int, seconds: float, groups: int) -> None:
    """Send naps: with plain Celery, or with the template's service in a batch or one by one."""
    chosen = {"nap": nap, "long_nap": long_nap}[task]
    arguments = [(seconds, f"group-{number % groups}", number) for number in range(count)]
    if how == "plain":
        import plain  # noqa: F401 - now it is the application of the task

        for each in arguments:
            chosen.apply_async(each, MessageGroupId=each[1])  # type: ignore[call-arg]
    else:
        from acme_jobs.celery import app

        with app.batching() if how == "batches" else contextlib.nullcontext():
            for each in arguments:
                app.send(chosen, *each, group=each[1])


if __name__ == "__main__":
    how, task, count, seconds, groups = sys.argv[1:]
    send(how, task, 0, 0, int(groups))  # Everything is imported.
    began = time.monotonic()
    send(how, task, int(count), float(seconds), int(groups))
    print(time.monotonic() - began)
