"""Who is compared, and with which settings: all do the same naps with four slots, unless their label says otherwise.

- ours: the service, with `seconds_per_task` as long as its tasks are.
- Celery: as in services.py, and with late acknowledgement and the prefetch that suits it best.
- dramatiq with dramatiq-sqs, taskiq with taskiq-aio-sqs, and sqs-consumer for Node: with their defaults, and with
  what their documentation offers for short tasks. Ten timers of Node are not four slots: they wait side by side.
- boto3: four threads in a loop, which is what is left when there is no framework.

Nobody keeps results, and everybody logs what they log by default.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.services import GUIDES, HERE, PLAIN, Load, Service, bake

from .install import NotHereError, node_modules, python

SLOTS = 4
SHORTEST_SECONDS = 0.001
"""The least that a contract's `seconds_per_task` may be."""

OURS = ("ours", "ours, in a batch", "ours, one by one", "ours, sent in a batch", "ours, sent one by one")
CELERY = replace(PLAIN, label="Celery, defaults")
CELERY_GUIDES = replace(GUIDES, label="Celery, the guides' settings")
CELERY_LATE = Service(
    "Celery, acks_late, prefetch 10 times",
    settings={"queue": "default", "task_acks_late": True, "worker_prefetch_multiplier": 10},
)
CELERY_RABBITMQ = Service(
    "Celery, quorum queue, confirms, acks_late",
    settings={
        "queue": "default",
        "task_default_queue_type": "quorum",
        "broker_transport_options": {"confirm_publish": True},
        "task_acks_late": True,
    },
)


@dataclass(frozen=True)
class Peer(Service):
    """What works and sends by commands of its own."""

    works: tuple[str, ...] = ()
    sends: tuple[str, ...] = ()
    """Without the number of tasks and their seconds, which follow."""
    sends_as: str = ""
    """Label where sending is compared; nothing if another one stands for it."""

    def environment(self, sqs: str, naps: Path) -> dict[str, str]:
        """Return the environment variables that lead it to its queue."""
        usual = super().environment(sqs, naps)
        return {**usual, "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE / "peers")))}

    def worker(self, _: int) -> list[str]:
        """Return the command that starts its worker."""
        return list(self.works)

    def sender(self, _: str, load: Load) -> list[str]:
        """Return the command that sends tasks, and prints what `nap.time_sending` does."""
        return [*self.sends, str(load.tasks), str(load.seconds)]


def script(name: str) -> str:
    """Return the path of a script of a peer."""
    return str(HERE / "peers" / name)


SEND_BY_BOTO3 = (sys.executable, script("on_boto3.py"), "send")
BOTO3 = Peer(
    "boto3, 4 threads",
    works=(sys.executable, script("on_boto3.py"), "work", str(SLOTS)),
    sends=SEND_BY_BOTO3,
    sends_as="boto3, in batches of ten",
)


def of_python(program: Path) -> list[Peer]:
    """Return the peers of requirements.txt."""
    dramatiq = (str(program), "-m", "dramatiq", "on_dramatiq")
    by_dramatiq = (str(program), script("on_dramatiq.py"), "send")
    taskiq = (str(program), "-m", "taskiq", "worker", "on_taskiq:broker")
    by_taskiq = (str(program), script("on_taskiq.py"), "send")
    threads = ("--workers", "2", "--max-threadpool-threads", "2")
    ten = {"max_number_of_messages": 10}
    return [
        Peer(
            "dramatiq, 1 process of 4 threads",
            works=(*dramatiq, "--processes=1", "--threads=4"),
            sends=by_dramatiq,
            sends_as="dramatiq",
        ),
        Peer("dramatiq, 4 processes", works=(*dramatiq, "--processes=4", "--threads=1"), sends=by_dramatiq),
        Peer("taskiq, defaults", works=taskiq, sends=by_taskiq, sends_as="taskiq"),
        Peer("taskiq, receives 10, 2 processes of 2 threads", settings=ten, works=(*taskiq, *threads), sends=by_taskiq),
    ]


def of_node(modules: Path) -> list[Peer]:
    """Return the peers of package.json."""
    return [
        Peer(
            f"sqs-consumer, {handler}, 10 timers",
            variables={"NODE_PATH": str(modules)},
            works=("node", script("on_sqs_consumer.cjs"), handler),
            sends=SEND_BY_BOTO3,
        )
        for handler in ("handleMessage", "handleMessageBatch")
    ]


def labels() -> list[str]:
    """Return the labels of all who can be compared, those of senders as well."""
    peers = [*of_python(Path()), *of_node(Path()), BOTO3]
    celery = (CELERY, CELERY_GUIDES, CELERY_LATE, CELERY_RABBITMQ)
    return [*OURS, *(one.label for one in (*celery, *peers)), *(one.sends_as for one in peers if one.sends_as)]


def others(names: Sequence[str] = ()) -> tuple[list[Service], dict[str, str]]:
    """Return who is compared with ours, and by their labels why others are not; install what is not there yet.

    Args:
        names: parts of labels; only peers with one of them are installed, and all are if there is none.
    """
    found: list[Service] = [CELERY, CELERY_GUIDES, CELERY_LATE]
    missing: dict[str, str] = {}
    for install, peers in ((python, of_python), (node_modules, of_node)):
        wanted = [one for one in peers(Path()) if is_named(names, one.label) or is_named(names, one.sends_as)]
        if not wanted:
            continue
        try:
            found += peers(install())
        except NotHereError as problem:
            missing |= {peer.label: str(problem) for peer in wanted}
    return [*found, BOTO3], missing


def is_named(names: Sequence[str], label: str) -> bool:
    """Tell whether a label has one of some names, in any case of letters; without names, every label has."""
    return not names or any(name.casefold() in label.casefold() for name in names)


def ours(folder: Path, seconds: float, concurrency: int = SLOTS, broker: str = "sqs-standard") -> Service:
    """Bake the service for tasks of so many seconds."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    numbers = {"seconds_per_task": max(seconds, SHORTEST_SECONDS), "concurrency": concurrency}
    return Service("ours", bake(folder, broker, **numbers))
