"""Runs the service and its alternatives for the benchmarks: each with a stand-in for SQS and workers of its own.

light_sqs.py says why the stand-in is not moto. All run the same tasks with the same log level and no results. The
alternatives are plain Celery:

- the guides' settings: what most guides have people copy, that is predefined queues, `task_acks_late`, a
  `worker_prefetch_multiplier` of 1 and a `polling_interval` of 1 s.
- plain defaults: predefined queues, and otherwise what Celery does by itself: it takes four messages for each process,
  deletes each before its task runs, and so loses what a worker that dies had taken.
- plain, in order: what keeps a FIFO queue's order with kombu's own transport, which is one task at a time in each
  worker; with a `polling_interval` of 0.05 s, so that it need not wait.

The service is the template's default answers with one queue and no results; its owner has put into contract.json what
a benchmark gives to `bake`.
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

import psutil

HERE = Path(__file__).parent
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
    batches: bool = True
    """Whether a project sends in batches; plain Celery cannot."""
    variables: dict[str, str] = field(default_factory=dict)
    """Further environment variables."""

    def environment(self, sqs: str, naps: Path) -> dict[str, str]:
        """Return the environment variables that lead it to its queue."""
        sources = [str(HERE), *([str(self.project / "src"), str(self.project / "chassis")] if self.project else [])]
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
            **self.variables,
        }

    def worker(self, concurrency: int) -> list[str]:
        """Return the command that starts its worker."""
        if self.project:
            return [sys.executable, "-m", "acme_jobs", "worker", "default", "--include=naps"]
        arguments = [f"--concurrency={concurrency}", "--loglevel=INFO"]
        return [sys.executable, "-m", "celery", "--app=plain", "worker", *arguments]

    def sender(self, task: str, load: Load) -> list[str]:
        """Return the command that sends tasks, and prints what `nap.time_sending` does."""
        how = "plain" if not self.project else "batches" if self.batches else "singly"
        arguments = [how, task, str(load.tasks), str(load.seconds), str(load.groups)]
        return [sys.executable, str(HERE / "naps.py"), *arguments]


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
    first_seconds: float
    """From the start of the worker's process until its first task is done."""
    megabytes: float
    """Memory of the worker's processes, when everything is done."""


@dataclass(frozen=True)
class Worker:
    """A worker that runs."""

    process: subprocess.Popen[bytes]
    log: Path
    started: float
    """When, by the monotonic clock."""

    def processes(self) -> list[psutil.Process]:
        """Return its processes."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def megabytes(self) -> float:
        """Return the memory of its processes; what they share is counted once, where the system tells it."""
        each = [process.memory_full_info() for process in self.processes()]
        return float(sum(getattr(memory, "pss", memory.rss) for memory in each) / 1_000_000)

    def cpu_seconds(self) -> float:
        """Return how long processors have worked for its processes, including those that have ended."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # Its parent has its time now.
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def kill(self) -> None:
        """Kill all of its processes, as the end of a container does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def bake(folder: Path, broker: str, **numbers: float) -> Path:
    """Bake a project, and put numbers into its contract, as defaults of its queues and workers."""
    answers = [f"broker={broker}", "queues=default", "results=none"]
    options = ["--no-input", "--default-config", "--output-dir", str(folder / broker)]
    command = [sys.executable, "-m", "cookiecutter", str(HERE.parent), *options, *answers]
    subprocess.run(command, check=True, capture_output=True)
    project = folder / broker / "acme-jobs"
    contract = json.loads((project / "contract.json").read_text(encoding="utf-8"))
    for section in (contract["queue_defaults"], contract["worker_defaults"]):
        section.update({name: value for name, value in numbers.items() if name in section})
    (project / "contract.json").write_text(json.dumps(contract), encoding="utf-8")
    return project


def end_on_sigterm() -> None:
    """End this process on SIGTERM as on Ctrl-C, so that it stops its workers and servers."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextlib.contextmanager
def sqs(visibility_timeout_seconds: float = 0) -> Iterator[str]:
    """Run an SQS of one's own, and yield its URL."""
    command = [sys.executable, str(HERE / "light_sqs.py"), str(visibility_timeout_seconds)]
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
def working(service: Service, concurrency: int, environment: dict[str, str], log: str = "log") -> Iterator[Worker]:
    """Run a worker, which writes its log beside the naps."""
    path = Path(environment["NAPS"]).with_suffix(f".{log}")
    with path.open("w") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            service.worker(concurrency),
            cwd=path.parent,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    worker = Worker(process, path, started)
    try:
        yield worker
    finally:
        if process.poll() is None:
            worker.kill()


def wait(done: Callable[[], bool], log: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a worker.

    Raises:
        TimeoutError: it does not do what it should; the message is the end of its log.
    """
    patience = time.monotonic() + patience_seconds
    while not done():
        if time.monotonic() > patience:
            raise TimeoutError(f"a worker does not do its work:\n{log.read_text(encoding='utf-8')[-2000:]}")
        time.sleep(0.2)


def send(service: Service, task: str, load: Load, environment: dict[str, str]) -> tuple[float, float]:
    """Send tasks; return how many seconds that took, and how many of them a processor worked."""
    command = service.sender(task, load)
    sent = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
    seconds, cpu_seconds = json.loads(sent)
    return seconds, cpu_seconds


def written(naps: Path) -> list[Any]:
    """Return what tasks have written down."""
    return [json.loads(line) for line in naps.read_text(encoding="utf-8").splitlines()]


def run(service: Service, load: Load, folder: Path) -> Outcome:
    """Send tasks, and have one worker do them."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    naps = folder / "naps"
    naps.touch()
    with sqs() as url:
        environment = service.environment(url, naps)
        send_seconds, _ = send(service, "nap", load, environment)
        sent = sum(report(url)["requests"].values())
        with working(service, load.concurrency, environment) as worker:
            wait(lambda: not report(url)["left"] and naps.read_bytes().count(b"\n") >= load.tasks, worker.log)
            requests = sum(report(url)["requests"].values())
            megabytes = worker.megabytes()
    done = written(naps)
    if load.groups < load.tasks:
        check_order(done)
    ends = sorted(end for _, end, _, _ in done)
    return Outcome(
        send_rate=load.tasks / send_seconds,
        send_requests=sent / load.tasks,
        rate=(len(ends) - 1) / (ends[-1] - ends[0]),
        requests=requests / load.tasks,
        first_seconds=ends[0] - worker.started,
        megabytes=megabytes,
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
    with sqs() as url, working(service, 4, service.environment(url, folder / "naps")) as worker:
        wait(lambda: "ReceiveMessage" in report(url)["requests"], worker.log)
        first = report(url)

        def per_hour() -> float:
            last = report(url)
            more = sum(last["requests"].values()) - sum(first["requests"].values())
            return float(more / (last["at"] - first["at"]) * 3600)

        yield per_hour


def in_turn(services: Sequence[tuple[Service, Load]], folder: Path, turns: int) -> list[Outcome]:
    """Run services several times, in turn, so that the machine's moods hit all alike; return each one's medians."""
    outcomes = [[run(service, load, folder) for service, load in services] for _ in range(turns)]
    return [
        Outcome(*(statistics.median(values) for values in zip(*map(astuple, of_one), strict=True)))
        for of_one in zip(*outcomes, strict=True)
    ]
