"""Runs one of the peers.

Its worker starts on an empty queue, and is stopped (SIGSTOP) while tasks are sent. So neither its start nor the sending
is part of what is measured, and a peer that sends slowly does not wait for itself.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.services import HERE, Load, Service, Worker, report, send, sqs, wait, working, written

CHASSIS = HERE.parent / "{{cookiecutter.project_slug}}" / "chassis"
START_SECONDS = 60


@dataclass(frozen=True)
class Broker:
    """A broker that runs for one worker."""

    sqs: str
    """URL of the stand-in for SQS; of nobody for RabbitMQ."""
    variables: dict[str, str]
    """Environment variables that lead a project to it."""
    address: str
    """What leads plain Celery to it, as `broker_url`."""
    report: Callable[[], dict[str, Any]]
    """Tells what it was asked, and how many messages are left."""


@dataclass(frozen=True)
class Outcome:
    """What one run of one peer came to."""

    rate: float
    """Tasks done per second, between the end of the first and that of the last."""
    cpu: float
    """Seconds of processors per 1,000 tasks, of all of the worker's processes."""
    send_cpu: float
    """The same of the process that sent them."""
    receives: float
    """Requests per task."""
    deletes: float
    megabytes: float
    """Memory of the worker's processes, when everything is done."""


@contextlib.contextmanager
def on_sqs() -> Iterator[Broker]:
    """Run the stand-in for SQS."""
    with sqs() as url:
        yield Broker(url, {}, "sqs://", lambda: report(url))


@contextlib.contextmanager
def on_rabbitmq() -> Iterator[Broker]:
    """Run a RabbitMQ server, as `make dev` does.

    Raises:
        FileNotFoundError: there is none on this machine.
        TimeoutError: it does not start.
    """
    if str(CHASSIS) not in sys.path:
        sys.path.append(str(CHASSIS))
    rabbitmq = importlib.import_module("celery_aws.dev.brokers.rabbitmq")
    with ExitStack() as stack:
        variables = rabbitmq.create(None, "", "", None, stack)
        name, password = variables["BROKER_USERNAME"], variables["BROKER_PASSWORD"]
        address = variables["BROKER_URL"].replace("//", f"//{name}:{quote(password, safe='')}@")
        nothing = {"requests": {}, "left": 0}
        yield Broker("http://127.0.0.1:9", variables, address, lambda: nothing)


def settle(worker: Worker) -> None:
    """Wait until a worker has started, which is when all of its processes do next to nothing."""
    wait(lambda: worker.cpu_seconds() > 0.1, worker.log, START_SECONDS)
    seen = [0.0]

    def is_quiet() -> bool:
        seen.append(worker.cpu_seconds())
        return seen[-1] - seen[max(0, len(seen) - 6)] < 0.05

    wait(is_quiet, worker.log, START_SECONDS)


def run(service: Service, load: Load, broker: Callable[[], AbstractContextManager[Broker]]) -> Outcome:
    """Send tasks to a worker that has started, and have it do them.

    Raises:
        RuntimeError: the worker worked while it was stopped.
        TimeoutError: the worker does not do its work.
        subprocess.CalledProcessError: the tasks cannot be sent.
    """
    with tempfile.TemporaryDirectory() as folder, broker() as there:
        naps = Path(folder) / "naps"
        naps.touch()
        leads = there.variables if service.project else {"BROKER_URL": there.address}
        environment = {**service.environment(there.sqs, naps), **leads}
        with working(service, load.concurrency, environment) as worker:
            settle(worker)
            os.killpg(worker.process.pid, signal.SIGSTOP)
            _, send_cpu = send(service, "nap", load, environment)
            if written(naps):
                raise RuntimeError(f"{service.label} worked while it was stopped")
            asked, worked = Counter(there.report()["requests"]), worker.cpu_seconds()
            os.killpg(worker.process.pid, signal.SIGCONT)
            wait(lambda: naps.read_bytes().count(b"\n") >= load.tasks and not there.report()["left"], worker.log)
            worked = worker.cpu_seconds() - worked
            asked = Counter(there.report()["requests"]) - asked
            megabytes = worker.megabytes()
        ends = sorted(end for _, end, _, _ in written(naps))
    return Outcome(
        rate=(len(ends) - 1) / (ends[-1] - ends[0]),
        cpu=worked / load.tasks * 1000,
        send_cpu=send_cpu / load.tasks * 1000,
        receives=asked["ReceiveMessage"] / load.tasks,
        deletes=(asked["DeleteMessage"] + asked["DeleteMessageBatch"]) / load.tasks,
        megabytes=megabytes,
    )


def rate_of_sending(service: Service, load: Load) -> tuple[float, float]:
    """Return how many tasks are sent per second to SQS, and the seconds of processors per 1,000 of them."""
    with tempfile.TemporaryDirectory() as folder, on_sqs() as there:
        seconds, cpu_seconds = send(service, "nap", load, service.environment(there.sqs, Path(folder) / "naps"))
    return load.tasks / seconds, cpu_seconds / load.tasks * 1000
