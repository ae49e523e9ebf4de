"""A client for producers, as an application of others has it: with what it requires beside it, and no service."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from library.support import (
    BROKER,
    CHASSIS,
    CONTRACT,
    FAST_CONTRACT,
    HAS_RESULTS,
    IS_FIFO,
    PATH,
    PROJECT,
    broker,
    eventually,
    module,
    running_service,
)

app = module("service").app()
QUEUE = app.contract.queues[0]
PACKAGE = CONTRACT["package"]
CLIENT = f"{PACKAGE}_client"
GROUP = ".options(group='g')"

TASKS = '''
import decimal

from ..celery import app


@app.task
def shout(text: str) -> str:
    """Return the text in "upper" case."""
    print("shouting", text)
    return text.upper()


@app.task(message_group=lambda customer: f"customer-{customer}")
def greet(customer: int) -> str:
    return f"customer {customer}"


@app.task(deduplication_key=lambda order: order)
def ship(order: str) -> None:
    """Cannot be sent by a client."""


@app.task(bind=True, name="renamed", message_group="own")
def rename(self, text: str = "hear me", *, exact: decimal.Decimal = decimal.Decimal(1)) -> str:
    return f"{type(exact).__name__}: {text}"
'''
CHANGED = TASKS.replace("text: str) -> str", "text: str, loud: bool = False) -> str").replace(
    "customer: int) -> str", "client: int) -> str"
)


def service_with(tasks: str, folder: Path) -> dict[str, str]:
    """Write a service whose first queue has some tasks; return what leads a Python to it."""
    shutil.copytree(PROJECT, folder)
    (folder / "src" / PACKAGE / "tasks" / f"{QUEUE.module}.py").write_text(tasks, encoding="utf-8")
    settings = (folder / "src" / PACKAGE / "settings.py").open("a", encoding="utf-8")
    example = (folder / ".env.example").open("a", encoding="utf-8")
    with settings, example:
        settings.write("    orders: str\n")
        example.write("ORDERS=orders.db\n")
    return {**PATH, "PYTHONPATH": os.pathsep.join((str(folder / "src"), PATH["PYTHONPATH"]))}


def build(folder: Path, variables: dict[str, str], contract: Path = FAST_CONTRACT) -> tuple[Path, str]:
    """Build the client of a service with no environment variables; return its wheel and what was printed."""
    names = ("HOME", "PATH", "PYTHONPYCACHEPREFIX")
    environment = {**{name: os.environ[name] for name in names}, **variables, "CONTRACT_FILE": str(contract)}
    command = [sys.executable, "-m", "celery_aws.dev.client"]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (wheel,) = (folder / "dist").iterdir()
    return wheel, ran.stdout


def required(requirement: str, found: dict[str, Any]) -> dict[str, Any]:
    """Collect the distribution of a requirement and those that it requires, by name."""
    wanted = Requirement(requirement)
    extras = ("", *sorted(wanted.extras))
    if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
        return found
    key = ",".join((wanted.name, *extras))
    if key not in found:
        found[key] = importlib.metadata.distribution(wanted.name)
        for each in found[key].requires or ():
            inner = Requirement(each)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                inner.marker = None
                required(str(inner), found)
    return found


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment with a wheel and what it requires, and nothing else; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (metadata,) = importlib.metadata.distributions(name=CLIENT, path=[str(packages)])
    for distribution in {id(one): one for each in metadata.requires for one in required(each, {}).values()}.values():
        for top in {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}:
            if not (packages / top).exists():
                (packages / top).symlink_to(distribution.locate_file(top))
    return python


@pytest.fixture(scope="module")
def owner(tmp_path_factory):
    """The service, its tasks, and what leads a Python to them."""
    folder = tmp_path_factory.mktemp("owner") / "service"
    return folder, service_with(TASKS, folder)


@pytest.fixture(scope="module")
def built(owner):
    return build(*owner)


@pytest.fixture(scope="module")
def python(built, tmp_path_factory):
    return install(built[0], tmp_path_factory.mktemp("application") / "venv")


@pytest.fixture(scope="module")
def served(owner, tmp_path_factory):
    """The service, running, with the worker of its first queue."""
    with running_service(tmp_path_factory.mktemp("logs")) as service:
        service.start_worker(**owner[1], ORDERS="orders.db")
        assert service.ready(), service.log()
        yield service


def producing(service: Any) -> dict[str, str]:
    """Return the environment of a producer: without what leads to the service and its contract."""
    hidden = ("PYTHONPATH", "CONTRACT_FILE", "BROKER_MANAGEMENT_URL")
    environment = {name: value for name, value in service.environment.items() if name not in hidden}
    return {**environment, "LOG_LEVEL": "of the application"}


def run(python: Path, code: str, environment: dict[str, str]) -> str:
    """Run code of an application, and return what it prints."""
    code = textwrap.dedent(code)
    ran = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, timeout=90)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


PAGE = (PROJECT / "docs" / "client.md").read_text(encoding="utf-8")
EXAMPLES = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def followed(served, python, tmp_path_factory):
    """What the page's examples print, with their results, and the calls of AWS that they make."""
    results = "print(result.get(timeout=30), later.get(timeout=30), both.get(timeout=30), chain.get(timeout=30))"
    calls = tmp_path_factory.mktemp("calls") / "calls"
    recording = {"PYTHONPATH": str(Path(__file__).parent / "recording"), "RECORD_CALLS": str(calls)}
    printed = run(python, f"{EXAMPLES}\n{results if HAS_RESULTS else ''}", {**producing(served), **recording})
    return printed, [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


@pytest.mark.end_to_end
def test_page_when_followed_then_workers_run_its_tasks_once(served, followed):
    if HAS_RESULTS:
        assert followed[0] == "HEAR ME HEAR ME ['HEAR ME', 'HEAR US'] HEAR ME\n"
    assert eventually(lambda: served.waiting() == 0)
    assert eventually(lambda: served.log().count("shouting") == 8), served.log()
    assert "was built for other parameters" not in served.log()


@pytest.mark.end_to_end
def test_producer_when_it_uses_a_client_then_needs_no_other_permission(followed):
    as_permission = {"SendMessageBatch": "SendMessage", "HeadObject": "GetObject"}
    used = {f"{call['service']}:{as_permission.get(call['operation'], call['operation'])}" for call in followed[1]}
    files = (f"queues_{BROKER}.tf", f"results_{CONTRACT['results']}.tf")
    found = [path.read_text() for name in files if (path := CHASSIS / "terraform" / "service" / name).exists()]
    starts = re.compile(r"(?:broker_producer|results_read)_statements = (.*?)^  \}", re.DOTALL | re.MULTILINE)
    blocks = [block for text in found for block in starts.findall(text)]
    assert used <= {action for block in blocks for action in re.findall(r'"(\w+:\w+)"', block)}
    assert bool(used) == (BROKER == "sqs" or CONTRACT["results"] in ("s3", "dynamodb"))


@pytest.mark.end_to_end
def test_task_when_sent_in_asynchronous_code_then_has_the_request_id(served, python):
    code = f"""
        import asyncio
        from {CLIENT} import aio, request_id
        from {CLIENT} import app as jobs
        async def main():
            request_id.set("r-7")
            handle = await aio.send(jobs, "{QUEUE.name}.greet", 7, group="customer-7")
            print(handle.id, await aio.result(handle, timeout_seconds=30) if {HAS_RESULTS} else "customer 7")
        asyncio.run(main())
    """
    task_id, result = run(python, code, producing(served)).split(maxsplit=1)
    assert result == "customer 7\n"

    def ids():
        return {line.get("request_id") for line in lines_of(served) if line.get("task_id") == task_id}

    assert eventually(lambda: ids() == {"r-7"}), served.log()


@pytest.mark.skipif(not HAS_RESULTS, reason="it reads results")
@pytest.mark.end_to_end
def test_tasks_when_sent_then_have_what_the_service_states(served, python):
    code = f"""
        import celery
        from {CLIENT} import {QUEUE.module} as tasks
        greeting = tasks.greet.options(group="customer-7").delay(customer=7)
        renamed = tasks.rename.delay("{"hear " * 3}")
        chord = celery.chord([tasks.shout{GROUP}.s("a")], tasks.rename.partial()).apply_async()
        print(greeting.get(timeout=30), renamed.get(timeout=30), chord.get(timeout=30), sep="|")
    """
    printed = run(python, code, producing(served))
    assert printed == f"customer 7|Decimal: {'hear ' * 3}|Decimal: ['A']\n"
    groups = {line["task"].rpartition(".")[2]: line.get("group") for line in lines_of(served)}
    assert groups["greet"] == "customer-7"
    if BROKER == "sqs":
        assert groups["renamed"] == "own"


def lines_of(service: Any, label: str = "") -> list[dict[str, Any]]:
    """Return the log lines of tasks."""
    lines = [line for line in service.log(label).splitlines() if line.startswith("{")]
    return [found for line in lines if "task" in (found := json.loads(line))]


def test_client_when_installed_then_has_nothing_of_the_workers(python, built):
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    absent = (PACKAGE, "celery_aws", "pythonjsonlogger", "rich", "moto", "pytest")
    code = f"""
        import importlib, importlib.util, pkgutil, celery
        import {CLIENT}
        assert not [name for name in {absent} if importlib.util.find_spec(name)]
        for found in pkgutil.walk_packages({CLIENT}.__path__, "{CLIENT}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
        print(celery.signals.setup_logging.receivers)
    """
    assert run(python, code, {"PATH": os.environ["PATH"]}) == "[]\n"
    library = {path.stem for path in (packages / CLIENT / "_celery_aws").iterdir()}
    assert library.isdisjoint(("cli", "consumer", "dev", "dlq", "doctor", "logs", "testing", "worker"))
    assert f"not in the client: {PACKAGE}.tasks.{QUEUE.module}.ship: its deduplication key is a function" in built[1]


def test_arguments_when_wrong_then_raise_before_anything_is_read(python):
    code = f"""
        from {CLIENT} import errors, {QUEUE.module} as tasks
        wrong = [lambda task: task.delay(), lambda task: task.s("a", loud=True), lambda task: task.partial("a")]
        for use in wrong:
            try: use(tasks.shout{GROUP})
            except TypeError as error: print(error)
        try: tasks.greet.delay(7)
        except AttributeError as error: print(error)
        print(hasattr(tasks.shout, "delay"))
        try: tasks.shout{GROUP}.delay("a")
        except errors.SettingsError as error: print("ENVIRONMENT: " in str(error))
    """
    lines = run(python, code, {"PATH": os.environ["PATH"]}).splitlines()
    name = f"{PACKAGE}.tasks.{QUEUE.module}.shout"
    assert lines[:3] == [
        f"{name}: missing a required argument: 'text'",
        f"{name}: got an unexpected keyword argument 'loud'",
        f"{name}: too many positional arguments",
    ]
    assert "needs a message group: .options(group='...').delay(...)" in lines[3]
    assert lines[4:] == [str(not IS_FIFO), "True"]


RIGHT = f"""
from {CLIENT} import aio, app, errors, request_id, {QUEUE.module} as tasks

tasks.shout{GROUP}.delay(text="hear me")
tasks.rename.options(countdown=3).delay("hear me", exact=2)
with app.batching():
    tasks.greet.options(group="g").s(7)
"""
WRONG = f"""
from {CLIENT} import {QUEUE.module} as tasks

tasks.shout{GROUP}.delay(7)
tasks.shout{GROUP}.delay()
tasks.shout{GROUP}.s("hear me", loud=True)
tasks.shout{GROUP}.options(group=7)
tasks.greet.delay(7)
tasks.greet.options(countdown=3)
tasks.ship("order-7")
"""


@pytest.mark.skipif(BROKER != "sqs", reason="types do not depend on the broker")
def test_type_checker_when_an_argument_is_wrong_then_reports_each(python, tmp_path):
    for name, code in (("right", RIGHT), ("wrong", WRONG)):
        (tmp_path / f"{name}.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "right.py", "wrong.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found = re.findall(r"^(\w+)\.py:(\d+): error", ran.stdout, re.MULTILINE)
    assert found == [("wrong", str(line)) for line in range(4, 11)], ran.stdout


def test_other_services_worker_when_it_imports_a_client_then_is_unchanged(python):
    code = f"""
        import celery
        import {CLIENT}
        application = celery.Celery("application")
        application.library, application.queue_served = "celery_aws", None
        application.task(name="own")(celery.uuid)
        before = type(application.tasks["own"])
        celery.signals.worker_process_init.send(None)
        print(type(application.tasks["own"]) is before)
    """
    assert run(python, code, {"PATH": os.environ["PATH"]}) == "True\n"


@pytest.mark.end_to_end
def test_worker_when_its_tasks_have_changed_then_notices_the_client(python, tmp_path, tmp_path_factory):
    changed = service_with(CHANGED, tmp_path / "changed")
    code = f"""
        from {CLIENT} import {QUEUE.module} as tasks
        for text in ("one", "two"):
            tasks.shout{GROUP}.delay(text)
        tasks.greet{GROUP}.delay(customer=7)
    """
    with running_service(tmp_path_factory.mktemp("logs")) as service:
        run(python, code, producing(service))
        service.start_worker(**changed, ORDERS="orders.db")
        assert eventually(lambda: service.dead() == 1 and service.waiting() == 0), service.log()
        warned = [line for line in lines_of(service) if "built for other parameters" in line["message"]]
        assert sorted(line["task"].rpartition(".")[2] for line in warned) == ["greet", "shout"]
        assert service.log().count("shouting") == 2
        reason = broker.see_dead(service).reason
        assert reason["FailureAttempt"] == "1"
        assert "ArgumentsError" in reason["FailureException"]
        assert "greet(client: int) -> str" in reason["FailureException"]
        assert "unexpected keyword argument 'customer'; sent by client 0.1.0" in reason["FailureException"]


@pytest.mark.end_to_end
def test_clients_of_two_services_when_in_one_process_then_both_send(owner, built, python, tmp_path, tmp_path_factory):
    folder, variables = owner
    other = shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns("dist"))
    (other / "src" / PACKAGE).rename(other / "src" / "other_jobs")
    path = tmp_path / "contract.json"
    contract = {**json.loads(FAST_CONTRACT.read_text()), "service": "other-jobs", "package": "other_jobs"}
    path.write_text(json.dumps(contract))
    path_of_other = variables["PYTHONPATH"].replace(str(folder), str(other))
    wheel, _ = build(other, {**variables, "PYTHONPATH": path_of_other}, path)
    shutil.unpack_archive(wheel, tmp_path / "wheel", "zip")
    code = f"""
        import celery
        import {CLIENT} as first, other_jobs_client as second
        from {CLIENT}.{QUEUE.module} import shout
        from other_jobs_client.{QUEUE.module} import shout as other_shout
        application = celery.Celery("application")
        application.task(acks_late=False)(celery.uuid)
        with first.app.batching(), second.app.batching():
            shout{GROUP}.delay("hear me")
            other_shout{GROUP}.delay("hear me")
        assert celery.current_app._get_current_object() is application
        assert not isinstance(first.app, type(second.app))
    """
    with running_service(tmp_path_factory.mktemp("logs")) as service:
        environment = {**producing(service), "PYTHONPATH": str(tmp_path / "wheel"), "ENVIRONMENT": "elsewhere"}
        if BROKER == "sqs":
            name = app.contract.queue_name(QUEUE, "development").replace(CONTRACT["service"], "other-jobs")
            kind = {"FifoQueue": "true"} if IS_FIFO else {}
            service.client("sqs").create_queue(QueueName=name, Attributes=kind)
        own = {f"{name.upper()}_ENVIRONMENT": "development" for name in (PACKAGE, "other_jobs")}
        run(python, code, {**environment, **own})
        assert eventually(lambda: service.waiting() == (1 if BROKER == "sqs" else 2))
