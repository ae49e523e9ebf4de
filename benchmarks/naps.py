"""The task that every worker of the benchmark runs, and how it is sent."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from celery import shared_task


@shared_task(name="naps.nap")
def nap(seconds: float, group: str, number: int) -> None:
    """Work for some time, and write down when."""
    began = time.monotonic()
    time.sleep(seconds)
    with Path(os.environ["NAPS"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps([began, time.monotonic(), group, number]) + "\n")


def send(service: str, count: int, seconds: float, groups: int) -> None:
    """Send naps: with the template's service in batches, with plain Celery one by one."""
    arguments = [(seconds, f"group-{number % groups}", number) for number in range(count)]
    if service == "plain":
        import plain  # noqa: F401 - now it is the application of the task

        for each in arguments:
            nap.apply_async(each, MessageGroupId=each[1])
    else:
        from acme_jobs import publish

        with publish.batching():
            for each in arguments:
                publish.send(nap, *each, group=each[1])


if __name__ == "__main__":
    service, count, seconds, groups = sys.argv[1:]
    send(service, 0, 0, int(groups))  # Everything is imported.
    began = time.monotonic()
    send(service, int(count), float(seconds), int(groups))
    print(time.monotonic() - began)
