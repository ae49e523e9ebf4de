"""How fast, and with how many requests, the service sends and works, against plain Celery: `make benchmark` tells.

Every figure is a ratio, or a count of requests, so that it holds on other machines. The alternatives run in turn with
the service in the same run, on the same stand-in for SQS (light_sqs.py says why it is not moto), with the same task,
the same log level and no results; medians are compared. They are:

- the guides' settings: what most guides have people copy, that is predefined queues, `task_acks_late`, a
  `worker_prefetch_multiplier` of 1 and a `polling_interval` of 1 s.
- plain defaults: predefined queues, and otherwise what Celery does by itself: it takes four messages for each process,
  deletes each before its task runs, and so loses what a worker that dies had taken.
- plain, in order: what keeps a FIFO queue's order with kombu's own transport, which is one task at a time in each
  worker; with a `polling_interval` of 0.05 s, so that it need not wait.

The service is the template's default answers with one queue and no results; its owner has put into contract.json what
a task takes, and for FIFO the concurrency of 8.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
TURNS = 3
IDLE_SECONDS = 65
PATIENCE_SECONDS = 90
ACCOUNT = "123456789012"


@dataclass(frozen=True)
class Load:
    """Tasks to work on, by so many processes."""

    tasks: int
    seconds: float
    groups: int
    concurrency: int


@dataclass(frozen=True)
class Service:
    """What sends and works: a baked project, or plain Celery with these settings."""

    label: str
    project: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def environment(self, sqs: str, naps: Path) -> dict[str, str]:
        """Return the environment variables that lead it to its queue."""
        sources = [str(HERE), *([str(self.project / "src")] if self.project else [])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sources),
            "NAPS": str(naps),
            "SETTINGS": json.dumps(self.settings),
            "ENVIRONMENT": "benchmark",
            "LIVENESS_DIRECTORY": str(naps.parent),
            "QUEUE_URL_BASE": f"{sqs}/{ACCOUNT}",
            "AWS_ENDPOINT_URL": sqs,
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "BENCHMARKBENCHMARK",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
        }

    def worker(self, concurrency: int) -> list[str]:
        """Return the command that starts its worker."""
        if self.project:
            return [sys.executable, "-m", "acme_jobs", "worker", "default", "--include=naps"]
        arguments = [f"--concurrency={concurrency}", "--loglevel=INFO"]
        return [sys.executable, "-m", "celery", "--app=plain", "worker", *arguments]


GUIDES = Service(
    "the guides' settings",
    settings={
        "queue": "default",
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "transport": {"polling_interval": 1},
    },
)
PLAIN = Service("plain defaults", settings={"queue": "default"})
IN_ORDER = Service(
    "plain, in order",
    settings={
        "queue": "default.fifo",
        "worker_prefetch_multiplier": 1,
        "transport": {"polling_interval": 0.05},
    },
)

# The slow ones get fewer tasks: a rate needs no more.
BUSY = Load(tasks=1000, seconds=0.01, groups=1000, concurrency=4)
FEW = Load(tasks=40, seconds=0.01, groups=40, concurrency=4)
FIFO = Load(tasks=200, seconds=0.2, groups=20, concurrency=8)
FIFO_ALONE = Load(tasks=40, seconds=0.2, groups=20, concurrency=1)


@dataclass(frozen=True)
class Outcome:
    """What one run of one service came to."""

    send_rate: float
    """Tasks sent per second."""
    send_requests: float
    """Requests per task to send it."""
    rate: float
    """Tasks done per second, between the end of the first and that of the last."""
    requests: float
    """Requests per task of all kinds, until everything was done and deleted."""


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    label: str
    measured: float
    target: float
    against: str
    least: bool = False
    """Whether the target is the least it may be, instead of the most."""

    @property
    def is_met(self) -> bool:
        """Whether it is what it should be."""
        return self.measured >= self.target if self.least else self.measured <= self.target


def bake(folder: Path, broker: str, **numbers: float) -> Path:
    """Bake a project, and put numbers into its contract."""
    answers = [f"broker={broker}", "queues=default", "results=none"]
    options = ["--no-input", "--default-config", "--output-dir", str(folder / broker)]
    command = [sys.executable, "-m", "cookiecutter", str(HERE.parent), *options, *answers]
    subprocess.run(command, check=True, capture_output=True)
    project = folder / broker / "acme-jobs"
    contract = json.loads((project / "contract.json").read_text(encoding="utf-8"))
    contract["queues"][0].update(numbers)
    (project / "contract.json").write_text(json.dumps(contract), encoding="utf-8")
    return project


@contextlib.contextmanager
def sqs() -> Iterator[str]:
    """Run an SQS of one's own, and yield its URL."""
    command = [sys.executable, str(HERE / "light_sqs.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip() if server.stdout else ""
        finally:
            server.kill()


def report(url: str) -> dict[str, Any]:
    """Return what an SQS was asked."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - it is ours
        return dict(json.load(answer))


@contextlib.contextmanager
def working(service: Service, concurrency: int, environment: dict[str, str]) -> Iterator[Path]:
    """Run a worker, and yield its log."""
    log = Path(environment["NAPS"]).with_suffix(".log")
    with log.open("w") as output:
        worker = subprocess.Popen(
            service.worker(concurrency),
            cwd=log.parent,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def wait(done: Callable[[], bool], log: Path) -> None:
    """Wait for a worker.

    Raises:
        TimeoutError: it does not do what it should; the message is the end of its log.
    """
    patience = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > patience:
            raise TimeoutError(f"a worker does not do its work:\n{log.read_text(encoding='utf-8')[-2000:]}")
        time.sleep(0.2)


def run(service: Service, load: Load, folder: Path) -> Outcome:
    """Send tasks, and have one worker do them."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    naps = folder / "naps"
    naps.touch()
    with sqs() as url:
        environment = service.environment(url, naps)
        how = "service" if service.project else "plain"
        arguments = [how, str(load.tasks), str(load.seconds), str(load.groups)]
        sender = subprocess.run(
            [sys.executable, str(HERE / "naps.py"), *arguments],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
        )
        sent = sum(report(url)["requests"].values())
        with working(service, load.concurrency, environment) as log:
            wait(lambda: not report(url)["left"] and naps.read_bytes().count(b"\n") >= load.tasks, log)
            requests = sum(report(url)["requests"].values())
    done = [json.loads(line) for line in naps.read_text(encoding="utf-8").splitlines()]
    if load.groups < load.tasks:
        check_order(done)
    ends = sorted(end for _, end, _, _ in done)
    return Outcome(
        send_rate=load.tasks / float(sender.stdout),
        send_requests=sent / load.tasks,
        rate=(len(ends) - 1) / (ends[-1] - ends[0]),
        requests=requests / load.tasks,
    )


def check_order(done: list[Any]) -> None:
    """Refuse a throughput that was got by running tasks of one group side by side, or in another order.

    Raises:
        RuntimeError: it was.
    """
    before: dict[str, tuple[float, int]] = {}
    for began, ended, group, number in sorted(done):
        end_before, number_before = before.get(group, (0, -1))
        if began < end_before or number < number_before:
            raise RuntimeError(f"task {number} of {group} ran out of order")
        before[group] = (ended, number)


@contextlib.contextmanager
def idling(service: Service, folder: Path) -> Iterator[Callable[[], float]]:
    """Run a worker that has nothing to do, and yield what tells its requests per hour so far.

    They are counted from its first poll to its last one, so that neither the start nor a poll that goes on matters.
    """
    folder = Path(tempfile.mkdtemp(dir=folder))
    with sqs() as url, working(service, 4, service.environment(url, folder / "naps")) as log:
        wait(lambda: "ReceiveMessage" in report(url)["requests"], log)
        first = report(url)

        def per_hour() -> float:
            last = report(url)
            more = sum(last["requests"].values()) - sum(first["requests"].values())
            return float(more / (last["at"] - first["at"]) * 3600)

        yield per_hour


def in_turn(services: Sequence[tuple[Service, Load]], folder: Path) -> list[Outcome]:
    """Run services several times, in turn, so that the machine's moods hit all alike; return each one's medians."""
    turns = [[run(service, load, folder) for service, load in services] for _ in range(TURNS)]
    return [
        Outcome(*(statistics.median(values) for values in zip(*map(astuple, outcomes), strict=True)))
        for outcomes in zip(*turns, strict=True)
    ]


def main() -> None:
    """Measure, print the table, and exit with 1 if a target is missed."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        ours = Service("service", bake(folder, "sqs-standard", seconds_per_task=0.01))
        ours_fifo = Service("service", bake(folder, "sqs-fifo", seconds_per_task=0.2, concurrency=8))
        # These two run beside all others, and ask for so little that they disturb none.
        idle, plain_idle = (stack.enter_context(idling(service, folder)) for service in (ours, PLAIN))
        began = time.monotonic()
        best, stock, copied = in_turn([(ours, BUSY), (PLAIN, BUSY), (GUIDES, FEW)], folder)
        fifo, alone = in_turn([(ours_fifo, FIFO), (IN_ORDER, FIFO_ALONE)], folder)
        time.sleep(max(0, began + IDLE_SECONDS - time.monotonic()))
        figures = [
            Figure("tasks of 10 ms per second", best.rate / copied.rate, 10, f"times {GUIDES.label}", least=True),
            Figure("tasks of 10 ms per second", best.rate / stock.rate, 1, f"times {PLAIN.label}", least=True),
            Figure("requests to send a task", best.send_requests, 0.11, f"{stock.send_requests:.2f} {PLAIN.label}"),
            Figure("sending 1,000 tasks", best.send_rate / stock.send_rate, 5, f"times {PLAIN.label}", least=True),
            Figure("all requests for a task of 10 ms", best.requests, 0.32, f"{stock.requests:.2f} {PLAIN.label}"),
            Figure("FIFO tasks of 0.2 s per second", fifo.rate / alone.rate, 5, f"times {IN_ORDER.label}", least=True),
            Figure("idle requests per hour, queue and worker", idle(), 180, f"{plain_idle():.0f} {PLAIN.label}"),
        ]
    table = Table("figure", "target", "measured", "against")
    for figure in figures:
        measured = f"{figure.measured:.3g}" if figure.is_met else f"[bold red]{figure.measured:.3g}, missed[/]"
        table.add_row(figure.label, f"{'≥' if figure.least else '≤'} {figure.target:g}", measured, figure.against)
    Console(width=100).print(table)
    sys.exit(not all(figure.is_met for figure in figures))


if __name__ == "__main__":
    main()
