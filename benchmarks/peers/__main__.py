"""Measures the service beside other task queues, on the same stand-in for SQS, and against plain Celery on RabbitMQ.

    python -m benchmarks peers [--keep]     # all of it; --keep writes docs/benchmarks.md
    python -m benchmarks.peers --part work --rounds 1 --tasks 300 ours taskiq

who.py tells who is compared, run.py what is measured. Peers that this machine cannot run are named, and left out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from benchmarks.services import Load, Service, end_on_sigterm
from tools.figures import number, write

from .run import Outcome, on_rabbitmq, on_sqs, rate_of_sending, run
from .who import CELERY, CELERY_GUIDES, CELERY_RABBITMQ, SLOTS, Peer, is_named, labels, others, ours

T = TypeVar("T")

HERE = Path(__file__).parent
TEMPLATE = HERE.parents[1]
PAGE = "docs/benchmarks.md"
PLACE = re.compile(r"(?<=<!-- peers -->\n).*?(?=<!-- end of peers -->)", re.DOTALL)
PARTS = ("work", "concurrency", "send", "rabbitmq")

TASKS = {0.0: 1000, 0.01: 600, 0.05: 300}
"""How many tasks of so many seconds."""
FEW = 40
"""For who would take minutes."""
TO_SEND = 1000
CONCURRENCIES = (1, 2, 4, 8, 16, 32)
SECONDS_OF_SCALING = 5
"""What each of them takes, if nothing is in its way."""

console = Console(width=140)


@dataclass(frozen=True)
class Table:
    """A table, for a terminal and for a page."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def show(self) -> None:
        """Print it."""
        table = RichTable(*map(escape, self.heads), title=self.title, title_justify="left")
        for row in self.rows:
            table.add_row(*map(escape, row))
        console.print(table)

    def markdown(self) -> str:
        """Return it for a page."""
        lines = (self.heads, ("---",) * len(self.heads), *self.rows)
        return f"### {self.title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


@dataclass
class Bench:
    """How much is measured, and who had to be left out."""

    rounds: int = 3
    most_tasks: int = 10_000
    parts: Sequence[str] = PARTS
    names: Sequence[str] = ()
    """Parts of the labels of those who run; all do if there is none."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why they cannot run here, by their labels."""
    failed: list[str] = field(default_factory=list)
    """Labels of those whose run failed."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out on purpose, so that the outcome can be kept."""
        whole = Bench()
        return (self.most_tasks, self.parts, self.names) == (whole.most_tasks, whole.parts, whole.names)

    def chosen(self, services: Iterable[Service]) -> list[Service]:
        """Return those who run."""
        return [one for one in services if is_named(self.names, one.label)]

    def load(self, tasks: int, seconds: float, concurrency: int = SLOTS) -> Load:
        """Return so many tasks, or as many as there may be."""
        return Load(min(tasks, self.most_tasks), seconds, groups=0, concurrency=concurrency)

    def in_rounds(self, jobs: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
        """Do every job in each round, so that the machine's moods hit all alike; go on without those that fail."""
        done: dict[str, list[T]] = {name: [] for name in jobs}
        for _ in range(self.rounds):
            for name in list(done):
                try:
                    done[name].append(jobs[name]())
                except (OSError, RuntimeError, subprocess.CalledProcessError) as problem:
                    console.print(f"[bold red]{escape(name)} fails:[/] {escape(str(problem))}")
                    self.failed.append(name)
                    del done[name]
                else:
                    console.print(f"[dim]{escape(name)}: {escape(str(done[name][-1]))}[/]")
        return done

    def work(self, everybody: Sequence[Service], folder: Path) -> Iterator[Table]:
        """Work with four slots, once for each duration of tasks."""
        heads = ("", "tasks a second", "ours / this", "CPU s per 1,000", "receive + delete a task", "MB")
        for seconds, tasks in TASKS.items():
            loads = [
                (service, self.load(FEW if service == CELERY_GUIDES else tasks, seconds))
                for service in self.chosen([ours(folder, seconds), *everybody])
            ]
            done = self.in_rounds({one.label: partial(run, one, load, on_sqs) for one, load in loads})
            rows = []
            for label, outcomes in done.items():
                times = ""
                if label != "ours" and "ours" in done:
                    times = number(median(done["ours"], "rate") / median(outcomes, "rate"))
                requests = (number(median(outcomes, name)) for name in ("receives", "deletes"))
                rows.append(
                    (
                        label,
                        spread(outcome.rate for outcome in outcomes),
                        times,
                        spread(outcome.cpu for outcome in outcomes),
                        " + ".join(requests),
                        number(median(outcomes, "megabytes")),
                    )
                )
            limit = f", of which {SLOTS} slots can do {SLOTS / seconds:g} a second" if seconds else ""
            yield Table(f"{kind(seconds)}{limit}", heads, rows)

    def concurrency(self, folder: Path) -> Iterator[Table]:
        """Work with more and more slots."""
        seconds = max(TASKS)
        jobs: dict[str, Callable[[], Outcome]] = {}
        for slots in CONCURRENCIES:
            load = self.load(round(SECONDS_OF_SCALING * slots / seconds), seconds, slots)
            for service in self.chosen([ours(folder, seconds, slots), CELERY]):
                jobs[f"{service.label}, {slots} slots"] = partial(run, service, load, on_sqs)
        done = self.in_rounds(jobs)
        heads = ("slots", "limit", "ours", "Celery, defaults")
        rows = [
            (
                str(slots),
                f"{slots / seconds:g}",
                *(
                    spread(outcome.rate for outcome in done.get(f"{label}, {slots} slots", ()))
                    for label in ("ours", CELERY.label)
                ),
            )
            for slots in CONCURRENCIES
        ]
        yield Table(f"{kind(seconds)}: how many a second, by the number of slots", heads, rows)

    def send(self, everybody: Sequence[Service], folder: Path) -> Iterator[Table]:
        """Send tasks, and have nobody do them."""
        service = replace(ours(folder, 0), label="ours, in a batch")
        singly = replace(service, label="ours, one by one", batches=False)
        load = self.load(TO_SEND, 0)
        senders = [service, singly, replace(CELERY, label="Celery")]
        peers = [one for one in everybody if isinstance(one, Peer) and one.sends_as]
        senders += [replace(one, label=one.sends_as) for one in peers]
        done = self.in_rounds({one.label: partial(rate_of_sending, one, load) for one in self.chosen(senders)})
        rows = [
            (label, spread(rate for rate, _ in each), spread(cpu_seconds for _, cpu_seconds in each))
            for label, each in done.items()
        ]
        yield Table(f"Sending {load.tasks:,} tasks", ("", "tasks a second", "CPU s per 1,000"), rows)

    def rabbitmq(self, folder: Path) -> Iterator[Table]:
        """Work and send on RabbitMQ."""
        heads = ("", "tasks a second", "worker's CPU ms a task", "producer's CPU ms a task", "MB")
        for seconds in (0.0, 0.01):
            service = ours(folder, seconds, broker="rabbitmq")
            senders = [
                replace(service, label="ours, sent in a batch"),
                replace(service, label="ours, sent one by one", batches=False),
                CELERY_RABBITMQ,
            ]
            load = self.load(TASKS[seconds], seconds)
            done = self.in_rounds({one.label: partial(run, one, load, on_rabbitmq) for one in self.chosen(senders)})
            rows = [
                (
                    label,
                    spread(outcome.rate for outcome in outcomes),
                    spread(outcome.cpu for outcome in outcomes),
                    spread(outcome.send_cpu for outcome in outcomes),
                    number(median(outcomes, "megabytes")),
                )
                for label, outcomes in done.items()
            ]
            yield Table(f"{kind(seconds)}, on RabbitMQ", heads, rows)

    def measure(self) -> list[Table]:
        """Measure the parts that were chosen, and print each table when it is there."""
        everybody, missing = others(self.names)
        self.missing |= missing
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            parts: dict[str, Callable[[], Iterator[Table]]] = {
                "work": lambda: self.work(everybody, folder),
                "concurrency": lambda: self.concurrency(folder),
                "send": lambda: self.send(everybody, folder),
                "rabbitmq": lambda: self.rabbitmq(folder),
            }
            tables = []
            for part in self.parts:
                for table in parts[part]():
                    table.show()
                    tables.append(table)
        for label, why in self.missing.items():
            console.print(f"[bold]left out:[/] {escape(label)}: {escape(why)}")
        return tables


def kind(seconds: float) -> str:
    """Say what tasks are these."""
    return f"Tasks of {1000 * seconds:g} ms" if seconds else "Tasks that do nothing"


def spread(values: Iterable[float]) -> str:
    """Write the median, and the range that it lies in."""
    each = sorted(values)
    if not each:
        return "failed"
    ranges = f" ({number(each[0])} to {number(each[-1])})" if len(each) > 1 else ""
    return number(statistics.median(each)) + ranges


def median(outcomes: Iterable[Outcome], name: str) -> float:
    """Return the median of one figure."""
    return statistics.median(float(getattr(outcome, name)) for outcome in outcomes)


def machine() -> str:
    """Say what was measured with, and when."""
    today = datetime.datetime.now(tz=datetime.timezone.utc).date()
    node = version("node", "--version").removeprefix("v")
    broker = version("rabbitmqctl", "version")
    told = {"Python": platform.python_version(), "Celery": metadata.version("celery"), **pinned()}
    told |= {name: one for name, one in (("Node", node), ("RabbitMQ", broker)) if one}
    versions = ", ".join(f"{name} {one}" for name, one in told.items())
    return f"{today.day} {today:%B %Y}, {os.cpu_count()} processors, {platform.machine()}; {versions}"


def pinned() -> dict[str, str]:
    """Return the versions of the peers that are installed on demand."""
    text = (HERE / "requirements.txt").read_text(encoding="utf-8")
    named = re.findall(r"^((?:dramatiq|taskiq)(?:-sqs|-aio-sqs)?)==(\S+)", text, re.MULTILINE)
    package = json.loads((HERE / "package.json").read_text(encoding="utf-8"))
    return {**dict(named), "sqs-consumer": package["dependencies"]["sqs-consumer"]}


def version(*command: str) -> str:
    """Return what a program says of its version, or nothing."""
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def page(text: str, bench: Bench, tables: Iterable[Table]) -> str:
    """Return a page with what was measured in its place."""
    told = "".join(f"Left out: {label} ({why}).\n\n" for label, why in bench.missing.items())
    rounds = f"medians and ranges of {bench.rounds} rounds" if bench.rounds > 1 else "one round"
    measured = f"\nMeasured on {machine()}; {rounds}.\n\n{told}{''.join(table.markdown() for table in tables)}"
    return PLACE.sub(lambda _: measured, text)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and keep if told so.

    Raises:
        SystemExit: a run failed, or only a part would be kept; then nothing is.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description="Measure the service beside others."
    )
    parser.add_argument("names", nargs="*", help="those whose labels have one of these; everybody unless named")
    parser.add_argument("--part", dest="parts", action="append", choices=PARTS, help="all of them unless named")
    parser.add_argument("--rounds", type=int, default=Bench.rounds)
    parser.add_argument("--tasks", type=int, default=Bench.most_tasks, help="at most so many in each run")
    parser.add_argument("--keep", action="store_true", help=f"write {PAGE}")
    asked = parser.parse_args(arguments)
    if asked.rounds < 1:
        parser.error(f"--rounds {asked.rounds}: must be 1 or more")
    if asked.tasks < 2:
        parser.error(f"--tasks {asked.tasks}: must be 2 or more, as a rate needs two")
    bench = Bench(asked.rounds, asked.tasks, tuple(asked.parts or PARTS), tuple(asked.names))
    if asked.keep and not bench.is_whole:
        parser.error("only the whole can be kept")
    known = labels()
    for name in asked.names:
        if not any(is_named([name], label) for label in known):
            parser.error(f"no label has {name!r}; there are: {'; '.join(dict.fromkeys(known))}")
    tables = bench.measure()
    if bench.failed:
        parser.exit(1, f"failed: {'; '.join(bench.failed)}{'; nothing is kept' if asked.keep else ''}\n")
    if asked.keep:
        write(TEMPLATE, {PAGE: page((TEMPLATE / PAGE).read_text(encoding="utf-8"), bench, tables)})


if __name__ == "__main__":
    end_on_sigterm()
    main(sys.argv[1:])
