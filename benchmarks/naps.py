"""The tasks that every worker of the benchmarks runs, and how they are sent."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

import nap as work
from celery import shared_task

nap = shared_task(name="naps.nap")(work.nap)


@shared_task(name="naps.long_nap")
def long_nap(seconds: float, group: str, number: int) -> None:
    """Write down when work begins, and the process id of the worker; then work for some time."""
    work.write_down(time.monotonic(), os.getppid())
    time.sleep(seconds)


def send(how: str, task: str, count: int, seconds: float, groups: int) -> None:
    """Send naps: with plain Celery, or with the template's service in a batch or one by one."""
    chosen = {"nap": nap, "long_nap": long_nap}[task]
    arguments = [(seconds, f"group-{number % groups}" if groups else "", number) for number in range(count)]
    if how == "plain":
        import plain  # noqa: F401 - now it is the application of the task

        for each in arguments:
            options: dict[str, Any] = {"MessageGroupId": each[1]} if groups else {}
            chosen.apply_async(each, **options)
    else:
        from acme_jobs.celery import app

        with app.batching() if how == "batches" else contextlib.nullcontext():
            for each in arguments:
                app.send(chosen, *each, group=each[1] or None)


if __name__ == "__main__":
    how, task, count, seconds, groups = sys.argv[1:]
    work.time_sending(lambda many: send(how, task, many, float(seconds), int(groups)), int(count))
