"""Keeps the chosen option files, makes what follows from the queues, and says what was derived.

Runs in the new project. What there is to do comes from hooks/answers.py, as data.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

PLAN = r"""{{ cookiecutter | plan }}"""

FOLDERS = ("chassis", "src", "tests", "terraform", "docs", ".github")


def files(project: Path) -> Iterator[Path]:
    """Yield the files the template can have written; an existing project may hold far more."""
    yield from (path for path in project.iterdir() if path.is_file())
    for folder in FOLDERS:
        yield from (path for path in (project / folder).rglob("*") if path.is_file())


def keep_chosen(project: Path, chosen: Iterable[str], options: Iterable[str]) -> None:
    """Remove what belongs to options that were not chosen, by how it is named.

    In the chassis a file or a folder has its options as words of its name, and keeps them: `results/s3.py`,
    `results_s3.tf`. Elsewhere `thing.<option>.ext`, for one option or more, becomes `thing.ext`.
    """
    other = set(options) - set(chosen)
    for path in sorted(files(project)):
        name, of = path.name, []
        relative = path.relative_to(project).as_posix()
        if relative.startswith("chassis/"):
            of = re.split(r"[/._]", relative)
        else:
            thing, *between = name.split(".")
            while len(between) > 1 and between[0] in options:
                of.append(between.pop(0))
            name = ".".join((thing, *between))
        if not other.isdisjoint(of):
            path.unlink()
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # If it held nothing but files of options.
        elif name != path.name:
            path.replace(path.with_name(name))


def record_chassis(project: Path) -> None:
    """Write the checksums of the chassis, of all options, so that the record is the same in every service."""
    runpy.run_module("celery_aws.version")["write"](project / "chassis")


def make_task_modules(tasks: Path, modules: Iterable[str]) -> None:
    """Give each queue a module for its tasks; one that exists already is the owner's, and stays as it is."""
    stub = tasks / "queue.stub.py"  # No queue has a module of such a name.
    for module in modules:
        target = tasks / f"{module}.py"
        if not target.exists():
            target.write_bytes(stub.read_bytes())
    stub.unlink()


def make_copies(project: Path) -> None:
    """Let the project write what copies its contract, as `make compose.yaml README.md` does."""
    for module in ("celery_aws.dev.compose", "celery_aws.dev.timeouts"):
        runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    plan = json.loads(PLAN)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(Path.cwd() / "chassis"))
    record_chassis(Path.cwd())
    keep_chosen(Path.cwd(), plan["chosen"], plan["options"])
    make_task_modules(Path(plan["tasks"]), plan["modules"])
    make_copies(Path.cwd())
    if isinstance(sys.stdout, io.TextIOWrapper):  # A console of Windows may lack a character of the project's name.
        sys.stdout.reconfigure(errors="replace")
    print(plan["report"])
