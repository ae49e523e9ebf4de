"""dramatiq with dramatiq-sqs and its defaults. `python -m dramatiq on_dramatiq` works, this sends.

python on_dramatiq.py send COUNT SECONDS
"""

from __future__ import annotations

import sys

import dramatiq
from dramatiq_sqs import SQSBroker
from nap import nap, time_sending

broker = SQSBroker()
dramatiq.set_broker(broker)
task = dramatiq.actor(nap)


def send(count: int, seconds: float) -> None:
    """Send so many tasks of so many seconds."""
    for number in range(count):
        task.send(seconds, "", number)


if __name__ == "__main__":
    tasks, duration = int(sys.argv[2]), float(sys.argv[3])
    time_sending(lambda many: send(many, duration), tasks)
