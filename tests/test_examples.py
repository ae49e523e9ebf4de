"""A project whose owner has deleted the examples, as its README says, or a queue's module of tasks."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import eventually, label, shared_broker, source_path

ANSWERS = [
    {"results": "dynamodb"},
    {"broker": "sqs-fifo", "results": "none"},
    {"broker": "rabbitmq", "results": "redis"},
]

# Whole test suites run in here; what hangs is told by their own timeouts.
pytestmark = pytest.mark.timeout(1200)


def run(folder, *command, **variables):
    environment = {**os.environ, "PYTHONPATH": source_path(folder), **variables}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-4000:]
    return ran.stdout


def run_tests(folder, answers, *tests):
    """Run tests of a project, by default all."""
    run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, **shared_broker(answers))


def section(text, title):
    """Return a section of a page."""
    return re.search(rf"^## {title}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[0]


def names_of(examples):
    """Return what tells of the examples: their files, and their functions but `examples` itself."""
    functions = [node.name for node in ast.parse(examples.read_text(encoding="utf-8")).body if hasattr(node, "args")]
    assert "count_words" in functions
    return ["examples.py", *(name for name in functions if name != "examples")]


def delete_examples(folder):
    """Do as README says, and return what told of the examples."""
    names = names_of(folder / "src" / "acme_jobs" / "examples.py")
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    examples = section(text, "The examples")
    (command,) = re.findall(r"^rm .*$", examples, re.MULTILINE)
    assert command in text and text.count("rm src") == 1
    run(folder, *command.split())
    readme.write_text(text.replace(examples, ""), encoding="utf-8")
    return names


@pytest.mark.parametrize("answers", ANSWERS, ids=label)
def test_examples_when_deleted_then_nothing_names_them(project, answers):
    folder = project(**answers)
    names = delete_examples(folder)
    word = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?!\w)")
    found = [
        f"{path.relative_to(folder)}: {line}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "SHA256SUMS"
        for line in path.read_text(encoding="utf-8").splitlines()
        if word.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "answers",
    [ANSWERS[0], *(pytest.param(answers, marks=pytest.mark.slow) for answers in ANSWERS[1:])],
    ids=label,
)
def test_examples_when_deleted_then_tests_checks_and_dev_pass(project, tmp_path, answers):
    folder = project(**answers)
    delete_examples(folder)
    run_tests(folder, answers)
    run(folder, sys.executable, "-m", "ruff", "check", "--no-cache", ".")
    run(folder, sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".")
    run(folder, sys.executable, "-m", "mypy")
    with dev(folder, tmp_path / "log") as (process, log):
        assert eventually(lambda: "All workers are ready." in log(), 60), log()
        assert eventually(lambda: "No examples to send" in log(), 30), log()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0, log()
    assert "Traceback" not in log()


@pytest.mark.parametrize("answers", [{"results": "s3"}, pytest.param(ANSWERS[2], marks=pytest.mark.slow)], ids=label)
def test_examples_when_unassigned_tasks_are_refused_then_pass(project, answers):
    folder = project(**answers)
    path = folder / "contract.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "refuse_unrouted_tasks": True}))
    run_tests(folder, answers, "tests/test_examples.py")


class dev:  # noqa: N801
    """`make dev` of a project, and what it has said."""

    def __init__(self, folder, path):
        self.folder, self.path = folder, path

    def __enter__(self):
        with self.path.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery_aws.dev"],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": source_path(self.folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self.process, self.path.read_text

    def __exit__(self, *exc_info):
        if self.process.poll() is None:
            self.process.terminate()  # It takes along what it has started.
            self.process.wait(60)


SENT_TO_A_QUEUE_WITHOUT_A_MODULE = """
import pytest
from acme_jobs.celery import app

def test_tasks_go_to_their_queues(service, deliver):
    assert deliver("high.shout", "hear me") == "HEAR ME"
    with service.reached():
        queue = service.contract.celery_name(service.contract.queue("low"))
        sent = service.app.send_task("acme_jobs.tasks.high.shout", ["me too"], queue=queue, MessageGroupId="g")
        assert sent.get(timeout=30) == "ME TOO"
    with pytest.raises(Exception, match="unknown task 'low.shout'"):
        app.find("low.shout")
"""


def test_queue_when_its_module_is_deleted_then_its_worker_runs(project):
    folder = project(results="dynamodb")
    tasks = folder / "src" / "acme_jobs" / "tasks"
    own = section((folder / "README.md").read_text(encoding="utf-8"), "A task of your own")
    (code,) = re.findall(r"^   ```python\n(   from \.\..*?)^   ```", own, re.MULTILINE | re.DOTALL)
    with (tasks / "high.py").open("a", encoding="utf-8") as module:
        module.write("\n" + re.sub(r"^   ", "", code, flags=re.MULTILINE))
    (tasks / "low.py").unlink()
    (folder / "tests" / "test_own.py").write_text(SENT_TO_A_QUEUE_WITHOUT_A_MODULE, encoding="utf-8")
    own_test = ("tests/test_own.py", "tests/test_conformance.py")
    run_tests(folder, {}, *own_test)
    run(folder, sys.executable, "-m", "ruff", "check", "--no-cache", "src")


CANCELLED = """
from celery.exceptions import TaskRevokedError
from acme_jobs.celery import app
from celery_aws.testing.running import eventually
{code}
assert eventually(lambda: sent.state == "PROGRESS"), sent.state
assert sent.info["of"] == 1000
cancel(sent.id)
try:
    sent.get(timeout=30)
except TaskRevokedError as error:
    print(sent.state, error)
"""

TEST_CANCELLED = """
def test_cancelled(service):
    run = service.python("cancelled.py")
    assert run.stdout == "REVOKED cancelled\\n", run.stdout + run.stderr + service.log("high")
"""


@pytest.mark.parametrize("answers", [{"results": "dynamodb"}, {"broker": "rabbitmq", "results": "redis"}], ids=label)
def test_task_of_the_page_reports_progress_and_can_be_cancelled(project, answers):
    folder = project(**answers)
    page = section((folder / "docs" / "delivery.md").read_text(encoding="utf-8"), "Progress, and cancelling")
    task, producer = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    path, _, task = task.partition("\n")
    module = folder / path.removeprefix("# ")
    module.write_text(task, encoding="utf-8")
    for command in (("ruff", "check", "--no-cache"), ("ruff", "format", "--no-cache", "--check")):
        run(folder, sys.executable, "-m", *command, str(module))
    module.write_text(task.replace('print(f"', '__import__("time").sleep(0.1); print(f"'), encoding="utf-8")
    # What shows results is left to the test: it would wait for neither.
    code = "\n".join(line for line in producer.splitlines() if not line.startswith(("sent.", "cancel(")))
    (folder / "cancelled.py").write_text(CANCELLED.replace("{code}", code), encoding="utf-8")
    (folder / "tests" / "test_own.py").write_text(TEST_CANCELLED, encoding="utf-8")
    run_tests(folder, answers, "tests/test_own.py")
