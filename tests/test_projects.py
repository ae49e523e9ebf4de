"""Baked projects at work: their own tests, with real workers, for every pair of options."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from datetime import datetime, timedelta, timezone

import psutil
import pytest
from conftest import CHOICES, COMBINATIONS, PAIRS, RULES, eventually, label, need, shared_broker, source_path

# Whole test suites run in here; what hangs is told by their own timeouts.
pytestmark = pytest.mark.timeout(1800)

QUEUES = ("high, default, low", "only", "urgent-mail, bulk")
CASES = [{**pair, "queues": queues} for pair, queues in zip(PAIRS, itertools.cycle(QUEUES), strict=False)]


def test_pairs_cover_every_two_options():
    def pairs(combinations):
        return {
            (one, answers[one], other, answers[other])
            for answers in combinations
            for one in CHOICES
            for other in CHOICES
            if one < other
        }

    assert pairs(PAIRS) == pairs(COMBINATIONS)


def succeed(*command, cwd, **environment):
    """Run a command, and return what it printed; take its workers along if it must be stopped."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, output[-8000:] + errors[-4000:]
    return output


@pytest.mark.parametrize(
    "answers", [CASES[0], *(pytest.param(case, marks=pytest.mark.slow) for case in CASES[1:])], ids=label
)
def test_own_tests_and_types(project, answers):
    """On each queue a task is done, and one is dead-lettered and resent; the library's tests are for the rest."""
    if answers["results"] == "redis":
        need("redis-server")
    folder = project(**answers)
    succeed(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder, **shared_broker(answers))
    succeed(sys.executable, "-m", "mypy", cwd=folder)


def test_results_need_no_redis_server_on_the_laptop(project, tmp_path):
    folder = project(results="redis", queues="only")
    # An empty PATH: the interpreter is called by its full name, and nothing else is needed.
    test = ("-m", "pytest", "-q", "tests/test_conformance.py", "-k", "not terraform")
    succeed(sys.executable, *test, cwd=folder, PATH=str(tmp_path / "nothing"))


def test_dev_says_what_is_missing_where_nothing_can_run_rabbitmq(project):
    nowhere = "from celery_aws.dev.brokers import rabbitmq; rabbitmq.PROGRAM_FOLDERS = ()"
    emulator = "import runpy; runpy.run_module('celery_aws.dev.emulator', run_name='__main__')"
    run = subprocess.run(
        (sys.executable, "-c", f"{nowhere}; {emulator}"),
        cwd=project(broker="rabbitmq", queues="only"),
        env={**os.environ, "PATH": "/nowhere", "PYTHONPATH": "chassis"},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "install rabbitmq-server, Docker or Podman to run RabbitMQ; none of them was found\n"


def test_a_queue_added_by_hand_needs_a_module_and_nothing_else(project):
    """Its own tests hold worker, routes, Terraform and alarms to the contract."""
    need("terraform")
    folder = project(queues="only")
    contract = json.loads((folder / "contract.json").read_text(encoding="utf-8"))
    (only,) = contract["queues"]
    contract["queues"].append({"name": "mail-out", "heartbeat_seconds": 20})
    contract["workers"].append({"name": "mail-out", "queues": ["mail-out"], "concurrency": 1, "min": 0})
    only.update(hard_limit_seconds=900, visibility_timeout_seconds=1260, max_receive_count=20)
    contract["workers"][0]["concurrency"] = 2
    contract.update(wait_time_seconds=10, stop_timeout_seconds=90, soft_shutdown_seconds=60)
    (folder / "contract.json").write_text(json.dumps(contract, indent=2) + "\n", encoding="utf-8")
    own = (sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider")
    task = '"""Mail."""\nfrom celery import shared_task\n\n@shared_task\ndef post(to: str) -> str:\n    return to\n'
    (folder / "src" / "acme_jobs" / "tasks" / "mail_out.py").write_text(task, encoding="utf-8")
    for copies in ("compose", "timeouts"):  # As `make test` does.
        succeed(sys.executable, "-m", f"celery_aws.dev.{copies}", cwd=folder, PYTHONPATH="chassis")
    summary = succeed(*own, "tests/test_conformance.py", cwd=folder)
    for passed in (
        "test_queue_has_a_route[mail-out] PASSED",
        "test_terraform_runs_workers_of_each_queue[mail-out] PASSED",
        "test_queue_when_a_task_is_sent_then_is_done_once[mail-out] PASSED",
        "test_queue_when_a_task_fails_then_is_dead_lettered_and_resent[mail-out] PASSED",
    ):
        assert passed in summary


def test_a_wrong_edit_is_refused_everywhere_in_the_same_words(project):
    """In Terraform as well: see test_terraform.py."""
    folder = project(queues="only")
    contract = json.loads((folder / "contract.json").read_text(encoding="utf-8"))
    contract["queues"][0].update(visibility_timeout_seconds=659, hard_limit_second=3)
    contract["workers"][0].update(concurrency="1")
    contract["region"] = "mars"
    (folder / "contract.json").write_text(json.dumps(contract, indent=2) + "\n", encoding="utf-8")
    with pytest.raises(RULES.ContractError) as refused:
        RULES.read(folder / "contract.json")
    words = str(refused.value).splitlines()
    assert len(refused.value.problems) == 4
    for command in (
        ("acme_jobs", "contract"),
        ("acme_jobs", "worker", "only"),
        ("acme_jobs", "send", "only.send_invoice", "a"),
        ("acme_jobs", "health", "only"),
        ("acme_jobs", "queues", "--environment", "staging"),
        ("celery_aws.dev",),
        ("pytest", "-q"),
    ):
        run = subprocess.run(
            (sys.executable, "-m", *command),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": "src:chassis"},
            capture_output=True,
            text=True,
        )
        said = [line.removeprefix("E ").strip() for line in (run.stdout + run.stderr).splitlines()]
        assert run.returncode != 0, command
        assert "Traceback" not in run.stdout + run.stderr, command
        assert [line for line in words[1:] if line.strip() not in said] == [], (command, run.stdout + run.stderr)
        assert any(line.endswith(words[0]) for line in said), command


def mine(mark):
    """Return the processes that inherited a mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            # Erlang's name server is one for all of a machine, and outlives whoever needed it first.
            alive = process.status() != psutil.STATUS_ZOMBIE and process.name() != "epmd"
            if process.environ().get("MARK") == mark and alive:
                found.append(process)
        except psutil.Error:
            continue
    return found


def write_own_task(folder):
    """Do what README says of a task of one's own; return how it sends that from a shell, and from code."""
    section = (folder / "README.md").read_text(encoding="utf-8").partition("## A task of your own")[2]
    blocks = re.findall(r"^ *```(?:sh|python)\n(.*?)^ *```", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    task, shell, code = map(textwrap.dedent, blocks)
    (module,) = re.findall(r"`(src/\S+\.py)`", section.partition("```")[0])
    with (folder / module).open("a", encoding="utf-8") as tasks:
        tasks.write(f"\n{task}")
    return shell, code


def schedule_soon(folder):
    """Have the contract state a task that is due soon, and twice more in case the start takes longer."""
    contract = json.loads((folder / "contract.json").read_text(encoding="utf-8"))
    due = [datetime.now(timezone.utc) + timedelta(seconds=seconds) for seconds in (20, 45, 90)]
    about = {"task": "acme_jobs.examples.count_words", "queue": "low", "args": ["one two"], "group": "g"}
    contract["schedules"] = [
        {**about, "name": f"due-{number}", "at": f"{time:%Y-%m-%dT%H:%M:%S}"} for number, time in enumerate(due)
    ]
    (folder / "contract.json").write_text(json.dumps(contract, indent=2) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    "answers",
    [
        {"results": "redis", "queues": "low, producer"},
        {"broker": "sqs-fifo", "results": "none"},
        {"broker": "rabbitmq", "results": "s3", "queues": "low, producer"},
    ],
    ids=label,
)
def test_dev_runs_a_task_of_the_owners_and_ctrl_c_leaves_nothing(project, tmp_path, answers):
    folder = project(**answers)
    shell, code = write_own_task(folder)
    schedule_soon(folder)
    log = tmp_path / "log"
    reach = folder / ".env.development"
    with log.open("wb") as output:
        dev = subprocess.Popen(
            [sys.executable, "-m", "celery_aws.dev"],
            cwd=folder,
            env={**os.environ, "MARK": str(tmp_path), "PYTHONPATH": "src:chassis"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        done = "-> sent" if answers["results"] == "none" else "-> '3 words'"
        assert eventually(lambda: log.read_text().count(done) >= 2, 60), log.read_text()
        assert eventually(lambda: " succeeded " in log.read_text(), 30), log.read_text()
        assert len(mine(str(tmp_path))) > 5
        shell = shell.replace("acme-jobs send", "python -m acme_jobs send")  # It is not installed here.
        assert "python -m" in shell
        said = succeed("sh", "-c", shell, cwd=folder, PYTHONPATH="src:chassis")
        assert ('"HEAR ME"' in said) == (answers["results"] != "none")
        succeed("sh", "-c", f". ./{reach.name}; python -c '{code}'", cwd=folder, PYTHONPATH="src:chassis")
        done = r" succeeded +\w+\.shout "
        assert eventually(lambda: len(re.findall(done, log.read_text())) == 2, 30), log.read_text()
        assert eventually(lambda: re.search(r" succeeded .*due-[0-2]-2", log.read_text()), 90), log.read_text()
        os.killpg(dev.pid, 2)  # As a terminal does: to all of its foreground processes.
        assert dev.wait(timeout=30) == 0, log.read_text()
        assert mine(str(tmp_path)) == []
        assert not reach.exists()
        assert "Traceback" not in log.read_text()
    finally:
        for process in mine(str(tmp_path)):
            process.kill()


RUN_AN_EMULATOR = """
from celery_aws.dev import emulator
with emulator.running() as variables:
    print(variables, flush=True)
    input()
"""


def write_examples(folder, page):
    """Write the files that a page of a project shows, each named in its first line."""
    for code in re.findall(r"^```python\n(# src/.*?)^```", page, re.MULTILINE | re.DOTALL):
        (folder / code.partition("\n")[0][2:]).write_text(code.partition("\n")[2], encoding="utf-8")


EXTENDED = """
import sqlite3, sys
from pathlib import Path
from celery_aws import service as services
from celery_aws.testing.running import eventually, running_service
services.use("acme_jobs")
logs = Path(sys.argv[1])
database = sqlite3.connect(logs / "orders")
database.executescript("CREATE TABLE orders (id); INSERT INTO orders VALUES (1), (2)")
with running_service(logs) as service:
    service.environment["ORDERS_DATABASE"] = str(logs / "orders")
    refused = service.start_worker(label="refused", ACKS_LATE="False")
    assert refused.wait(30) and "acks_late=False is not supported" in service.log("refused"), service.log("refused")
    service.start_worker()
    assert service.ready(), service.log()
    sent = service.python("-m", "acme_jobs", "send", "high.count_orders", "--group=g", "--wait=30")
    assert sent.stdout.splitlines()[-1] == "2", sent.stderr
    service.stop_workers(warm_seconds=60)
    assert "connections closed" in service.log(), service.log()
    del service.environment["ORDERS_DATABASE"], service.environment["QUEUE_URL_BASE"]
    said = service.python("-m", "acme_jobs", "send", "high.count_orders").stderr
    assert "ORDERS_DATABASE" in said and "QUEUE_URL_BASE" in said and "Path of the database of orders" in said, said
"""


COUNT_ORDERS = """
from .. import orders
from ..celery import app

@app.task
def count_orders() -> int:
    return orders.count()
"""

SAY_WHETHER_CLOSED = """
@signals.worker_process_shutdown.connect
def _say(**rest):
    try:
        count()
    except sqlite3.ProgrammingError:
        print("connections closed", flush=True)
"""


def test_owner_adds_variables_connections_and_settings_as_the_page_says(project, tmp_path):
    folder = project()
    write_examples(folder, (folder / "docs" / "extending.md").read_text(encoding="utf-8"))
    package = folder / "src" / "acme_jobs"
    succeed(sys.executable, "-m", "mypy", cwd=folder)
    # So that the test sees what it looks for.
    with (package / "tasks" / "high.py").open("a", encoding="utf-8") as tasks:
        tasks.write(COUNT_ORDERS)
    with (package / "orders.py").open("a", encoding="utf-8") as orders:
        orders.write(SAY_WHETHER_CLOSED)
    with (package / "celery.py").open("a", encoding="utf-8") as made:
        made.write("import os\napp.conf.task_acks_late = os.environ.get('ACKS_LATE') != 'False'\n")
    succeed(sys.executable, "-c", EXTENDED, str(tmp_path), cwd=folder, PYTHONPATH=source_path(folder) + ":.")


def test_killed_dev_takes_its_emulator_along(project, tmp_path):
    folder = project()
    emulator = subprocess.Popen(
        [sys.executable, "-c", RUN_AN_EMULATOR],
        cwd=folder,
        env={**os.environ, "MARK": str(tmp_path), "PYTHONPATH": "chassis"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "AWS_ENDPOINT_URL" in emulator.stdout.readline()
    assert len(mine(str(tmp_path))) == 2
    emulator.kill()
    emulator.wait()
    assert eventually(lambda: mine(str(tmp_path)) == [], 15)


@pytest.mark.slow
def test_owner_follows_the_readme_on_a_fresh_machine(project, tmp_path):
    need("make")
    folder = project(queues="only")
    shell, _ = write_own_task(folder)
    home = tmp_path / "empty-home"
    home.mkdir()
    # Without what `make test` of the template hands down to every make below it.
    fresh = {"HOME": str(home), "MAKEFLAGS": "", "PYTHON": getattr(sys, "_base_executable", sys.executable)}
    make = ("make", f"PYTHON={fresh['PYTHON']}", "VENV=.venv")
    log = tmp_path / "log"
    began = time.monotonic()
    with log.open("wb") as output:
        dev = subprocess.Popen(
            [*make, "dev"],
            cwd=folder,
            env={**os.environ, **fresh},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        assert eventually(lambda: "-> 4" in log.read_text(), 300), log.read_text()
        assert '"HEAR ME"' in succeed("sh", "-c", shell, cwd=folder, **fresh)
        assert time.monotonic() - began < 300
    finally:
        os.killpg(dev.pid, signal.SIGINT)
        dev.wait(timeout=60)
    assert " passed" in succeed(*make, "test", cwd=folder, **fresh)
    succeed(*make, "check", cwd=folder, **fresh)
    assert "only: a task that always fails" in succeed(folder / ".venv" / "bin" / "acme-jobs", "contract", cwd=tmp_path)
    # Installed as a wheel, the service brings its contract with it.
    pip = (folder / ".venv/bin/python", "-m", "pip")
    succeed(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir=w", ".", cwd=folder)
    (wheel,) = (folder / "w").iterdir()
    assert "acme_jobs/contract.json" in succeed(sys.executable, "-m", "zipfile", "-l", str(wheel), cwd=folder)
