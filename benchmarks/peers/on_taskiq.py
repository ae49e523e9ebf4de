"""taskiq with taskiq-aio-sqs, and its settings in `SETTINGS`. `python -m taskiq` works, this sends.

python on_taskiq.py send COUNT SECONDS
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from nap import nap, time_sending
from taskiq_aio_sqs import SQSBroker

broker = SQSBroker(
    "default",
    endpoint_url=os.environ["AWS_ENDPOINT_URL"],
    region_name=os.environ["AWS_DEFAULT_REGION"],
    **json.loads(os.environ["SETTINGS"]),
)
# A function that is not async runs in taskiq's threads, as tasks that wait for a database or the CPU do.
task = broker.task(task_name="nap")(nap)


async def send(count: int, seconds: float) -> None:
    """Send so many tasks of so many seconds."""
    await broker.startup()
    for number in range(count):
        await task.kiq(seconds, "", number)
    await broker.shutdown()


if __name__ == "__main__":
    tasks, duration = int(sys.argv[2]), float(sys.argv[3])
    time_sending(lambda many: asyncio.run(send(many, duration)), tasks)
