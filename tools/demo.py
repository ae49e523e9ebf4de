"""Bakes the default answers and shows the result at work: `make demo` runs it.

Everything is real but AWS: the project is generated as a user would, its workers are processes, and
its queues are those of its own emulator. Exits with 1 and the reason when anything is not as said.
With `--picture docs/demo.svg`, what it has printed is drawn as well; `make pictures` does that.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import boto3
from rich.console import Console
from rich.table import Table

TEMPLATE = Path(__file__).parents[1]
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace"
VISIBILITY_TIMEOUT_SECONDS = 2
PATIENCE_SECONDS = 40
COLUMNS = 80
"""Width of the picture, and of what is printed meanwhile."""

console = Console(highlight=False)


class DemoError(RuntimeError):
    """Something did not happen."""


def bake(folder: Path) -> Path:
    """Bake the default answers, without the words that go with it."""
    command = [
        *(sys.executable, "-m", "cookiecutter", str(TEMPLATE)),
        *("--no-input", "--default-config", "--output-dir", str(folder)),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise DemoError(f"baking failed:\n{run.stdout}{run.stderr}")
    return next(path for path in folder.iterdir() if path.is_dir())


@contextmanager
def workers(project: Path, names: list[str], package: str, logs: Path) -> Iterator[None]:
    """Run the workers of these names."""
    environment = {**os.environ, "PYTHONPATH": f"{project / 'src'}{os.pathsep}{project / 'chassis'}"}
    with ExitStack() as stack:
        started = []
        for name in names:
            log = stack.enter_context((logs / f"{name}.log").open("wb"))
            command = [sys.executable, "-m", package, "worker", name]
            started.append(subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=log))
        try:
            yield
        finally:
            for worker in started:
                worker.terminate()
            for worker in started:
                try:
                    worker.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    worker.kill()


def eventually(holds: Callable[[], Any], what: str) -> Any:
    """Wait until `holds()` is true; give up with `what` that would have been."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        if time.monotonic() > end:
            raise DemoError(f"{what}: not within {PATIENCE_SECONDS} seconds")
        time.sleep(0.1)
    return found


def waiting(says: str) -> AbstractContextManager[object]:
    """Show that something is waited for; not in a picture, where it would stay."""
    return nullcontext() if console.record else console.status(f"  {says}")


def show_results(app: Any, examples: Any) -> None:
    """Send the examples to every queue, and show their results."""
    table = Table("queue", "task", "result", box=None, padding=(0, 2, 0, 2), header_style="dim")
    sent = [
        (queue, example, example.apply_async(MessageGroupId="demo"))
        for queue, example in importlib.import_module("celery_aws.dev.producer").on_every_queue(app, examples.examples)
    ]
    for queue, example, result in sent:
        name = repr(example).replace(f"{examples.__name__}.", "")
        table.add_row(queue, name, repr(result.get(timeout=PATIENCE_SECONDS)))
    console.print(table)


def show_dead_letter_and_redrive(sqs: Any, contract: Any, queue: Any, task: Any, folder: Path) -> None:
    """Let a task fail until it is dead-lettered, fix the cause, redrive the message, and see the task succeed."""

    def attributes(name: str, *names: str) -> dict[str, str]:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        return dict(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names))["Attributes"])

    def depth(name: str) -> int:
        visible, hidden = "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"
        return sum(map(int, attributes(name, visible, hidden).values()))

    main = contract.queue_name(queue, "development")
    dead_letters = contract.dead_letter_queue_name(queue, "development")
    missing = folder / "page.txt"
    result = task.apply_async((str(missing),), queue=contract.celery_name(queue), MessageGroupId="demo")
    with waiting(f"{task.name} fails: its file is missing"):
        eventually(lambda: depth(dead_letters) == 1, f"a message in {dead_letters}")
        # First the copy with the reason, then the delete.
        eventually(lambda: depth(main) == 0, f"none left in {main}")
    log = (folder / f"{queue.name}.log").read_text(encoding="utf-8", errors="replace")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    deliveries = sum(line.get("task_id") == result.id and "outcome" in line for line in lines)
    if deliveries != queue.max_receive_count:
        raise DemoError(f"{deliveries} deliveries instead of {queue.max_receive_count}")
    console.print(f"  its file is missing    {deliveries} attempts, then dead-lettered")
    missing.write_text("now it is here", encoding="utf-8")
    source, target = (attributes(name, "QueueArn")["QueueArn"] for name in (dead_letters, main))
    sqs.start_message_move_task(SourceArn=source, DestinationArn=target)
    with waiting("it is redriven"):
        eventually(lambda: depth(main) + depth(dead_letters) == 0, "both queues empty")
        eventually(lambda: read_again(result) == 4, "the result of the task")
    console.print("  its file is there      redriven, and succeeded: 4 words")


def read_again(result: Any) -> Any:
    """Read a result from where it is kept; Celery remembers the first final one it saw."""
    result._cache = None
    return result.result


def save_picture(file: Path) -> None:
    """Draw what was printed, as a terminal that loads nothing from anywhere."""
    drawn = console.export_svg(title="make demo", unique_id="demo")
    drawn = re.sub(r"@font-face {.*?}\s*", "", drawn, flags=re.DOTALL).replace("Fira Code, monospace", FONTS)
    file.write_text(f"{drawn.strip()}\n", encoding="utf-8")


def main(picture: Path | None = None) -> None:
    """Run the demo, and draw it if a file for the picture is given.

    Raises:
        DemoError: something did not happen.
    """
    began = time.monotonic()
    if picture:
        console.record, console.width = True, COLUMNS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        project = bake(folder)
        data = json.loads((project / "contract.json").read_text(encoding="utf-8"))
        names = [worker["name"] for worker in data["workers"]]
        console.print(f"\n[bold]1[/] Generated {data['service']} with the default answers.")

        sys.dont_write_bytecode = True
        stack.callback(os.chdir, Path.cwd())
        os.chdir(project)
        sys.path[:0] = [str(project / "chassis"), str(project / "src")]
        emulator = importlib.import_module("celery_aws.dev.emulator")
        os.environ["CONTRACT_FILE"] = str(emulator.write_fast_contract(folder / "hurried.json"))
        environment = stack.enter_context(emulator.running(VISIBILITY_TIMEOUT_SECONDS))
        os.environ.update(environment)
        stack.enter_context(workers(project, names, data["package"], folder))
        console.print(f"[bold]2[/] Emulator and {len(names)} workers started.")

        app = importlib.import_module(f"{data['package']}.celery").app
        examples = importlib.import_module(f"{data['package']}.examples")
        console.print("[bold]3[/] A task on every queue succeeded:\n")
        try:
            show_results(app, examples)
            console.print("\n[bold]4[/] A task that fails:\n")
            queue = app.contract.queues[0]
            task = examples.count_words_in_file
            show_dead_letter_and_redrive(boto3.client("sqs"), app.contract, queue, task, folder)
        except Exception:
            for name in names:
                log = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                console.print(f"\n[dim]The last lines of worker {name}:[/]\n" + "\n".join(log.splitlines()[-15:]))
            raise
    console.print(f"\n[green]Everything worked[/], in {time.monotonic() - began:.0f} seconds.\n")
    if picture:
        save_picture(picture)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--picture", type=Path, metavar="FILE", help="draw what was printed, as SVG")
    try:
        main(options.parse_args().picture)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - whatever it is, the demo failed
        Console(stderr=True).print(f"\n[red]The demo failed:[/] {error}", markup=True)
        sys.exit(1)
