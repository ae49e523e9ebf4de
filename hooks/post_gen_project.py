"""Keeps the chosen option files, makes the queues' task modules, and says what was derived.

Runs in the new project and needs no answer: `contract.json` holds them all.
"""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOMS = ("src", "dev", "tests", "terraform", "docs", ".github")


def tokens(answer: str) -> set[str]:
    """Return what files of this option may be called: `sqs-fifo` also chooses those of `sqs`."""
    return {answer, answer.split("-")[0]}


def files(project: Path) -> Iterator[Path]:
    """Yield the files the template can have written; an existing project may hold far more."""
    yield from (path for path in project.iterdir() if path.is_file())
    for room in ROOMS:
        yield from (path for path in (project / room).rglob("*") if path.is_file())


def keep_chosen(project: Path, chosen: set[str], options: set[str]) -> None:
    """Apply the naming rule: `thing.<option>.ext` becomes `thing.ext` if chosen, and goes if not."""
    for path in sorted(files(project)):
        parts = path.name.split(".", 2)
        if len(parts) == 3 and parts[1] in options:
            if parts[1] in chosen:
                path.replace(path.with_name(f"{parts[0]}.{parts[2]}"))
            else:
                path.unlink()


def make_task_modules(tasks: Path, modules: list[str]) -> None:
    """Give each queue a module of examples; one that is there already is its owner's."""
    examples = [tasks / "queue_first.py", tasks / "queue_other.py"]
    for index, module in enumerate(modules):
        target = tasks / f"{module}.py"
        if not target.exists():
            shutil.copyfile(examples[min(index, 1)], target)
    for example in examples:
        example.unlink()


def duration(seconds: float) -> str:
    """Write seconds as people say them."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def report(project: Path, contract: Any, advice: list[Any]) -> str:
    """Say what follows from the answers, and what to do next."""
    slowest = max(queue.seconds_to_dead_letter for queue in contract.queues)
    longest = max(len(queue.name) for queue in contract.queues)
    lines = [
        "",
        f"{contract.project_name} is ready in {project}",
        "",
        "  Queues, here in the environment production:",
        *(
            f"    {queue.name:<{longest}}  {contract.queue_name(queue, 'production')}"
            f"  ->  {contract.dead_letter_queue_name(queue, 'production')}"
            for queue in contract.queues
        ),
        f"  A task that always fails is dead-lettered {duration(slowest)} after its first failure.",
        f"  An idle month costs {contract.idle_requests_per_month:,} SQS requests.",
        *(f"  Note: {item}".replace("\n", "\n  ") for item in advice),
        "",
        "  Next:",
        f"    cd {project.name}",
        "    make dev     everything on this machine: emulator, workers and a sender",
        "    make test    its tests",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Finish the project in the working directory."""
    project = Path.cwd()
    contract_file = project / "contract.json"
    package = project / "src" / json.loads(contract_file.read_text(encoding="utf-8"))["package"]
    rules = runpy.run_path(str(package / "contract.py"), run_name="contract")
    contract = rules["read"](contract_file)
    chosen = {getattr(contract, choice) for choice in rules["CHOICES"]}
    options = {option for choice in rules["CHOICES"].values() for option in choice}
    keep_chosen(
        project,
        set().union(*map(tokens, chosen)),
        set().union(*map(tokens, options)),
    )
    make_task_modules(package / "tasks", [queue.module for queue in contract.queues])
    print(report(project, contract, rules["advice"](json.loads(contract_file.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
