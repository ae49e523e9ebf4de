"""Django: docs/django.md as it stands, with a project of one app, real workers, and a database that notes its use."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
import pytest

from celery_aws.testing.plugin import outcome_in
from library.support import CONTRACT, HAS_RESULTS, IS_FIFO, PROJECT, contract, eventually, module, running_service

pytestmark = pytest.mark.end_to_end

PACKAGE = CONTRACT["package"]
ROUTED, DEFAULT = contract.queues[0], contract.default_queue
"""The queue to which routes lead on the page, and that of other tasks."""
WORKERS = sorted({contract.worker_of(queue).name for queue in (ROUTED, DEFAULT)})
PAGE = (PROJECT / "docs" / "django.md").read_text(encoding="utf-8")
HAS_TASKS = django.VERSION >= (6, 0)
needs_tasks = pytest.mark.skipif(not HAS_TASKS, reason="Django has tasks from 6.0 on")

SETTINGS = """
import os
from pathlib import Path

FOLDER = Path(__file__).parents[2]
SECRET_KEY = "secret"
USE_TZ = True
INSTALLED_APPS = ["shop.orders", "shop.emails"]
DATABASES = {
    "default": {
        "ENGINE": "shop.database",
        "NAME": FOLDER / "orders.sqlite",
        "OPTIONS": {"pool": True, "timeout": 20},
        "CONN_MAX_AGE": 600,
    }
}
LOGGING = {"version": 1}  # It disables the loggers that exist, by default.
CELERY_IMPORTS = ["shop.orders.early"]
CELERY_RESULT_EXTENDED = True
CELERY_TASK_ANNOTATIONS = {}
if os.environ.get("CONTRADICTS"):
    CELERY_BROKER_URL = "redis://user:password@localhost"
    CELERY_TASK_ROUTES = {"shop.*": {"queue": "other"}}
"""

DATABASE = """
import os
from django.conf import settings
from django.db.backends.sqlite3 import base


def note(what):
    with (settings.FOLDER / "notes").open("a") as notes:
        notes.write(f"{os.getpid()} {what}\\n")


class DatabaseWrapper(base.DatabaseWrapper):
    def get_connection_params(self):
        return {name: value for name, value in super().get_connection_params().items() if name != "pool"}

    def get_new_connection(self, params):
        note("opened")
        return super().get_new_connection(params)

    def close(self):
        if self.connection is not None:
            note("closed")
        super().close()

    def close_pool(self):
        note("closed the pool")
"""

FILES = {
    "settings.py": SETTINGS,
    "database/__init__.py": "",
    "database/base.py": DATABASE,
    "orders/__init__.py": "",
    "orders/models.py": """
from django.db import models


class Order(models.Model):
    customer = models.CharField(max_length=50)
    confirmed = models.BooleanField(default=False)
""",
    "orders/early.py": """
from .models import Order

assert not Order.objects.filter(customer="nobody").exists()  # Opens a connection before task processes are forked.
""",
    "emails/__init__.py": "",
}
"""What a Django project has besides what the page shows."""

EMAILS = """


@task
def refuse(reason: str) -> None:
    raise ValueError(reason)


@task
async def wait(text: str) -> str:
    # Only there, a soft limit reaches it.
    return text if threading.current_thread() is threading.main_thread() else "in another thread"


@task(backend="other")
def elsewhere() -> None:
    pass


import threading

from django.tasks import signals


def tell(task_result, signal, **rest):
    name = "started" if signal is signals.task_started else "finished"
    print(f"{name} {task_result.task.name} {task_result.status}", flush=True)


signals.task_started.connect(tell)
signals.task_finished.connect(tell)
"""

OTHERS = """
TASKS["other"] = {"BACKEND": "django.tasks.backends.dummy.DummyBackend"}
CELERY_TASK_ANNOTATIONS |= {f"shop.emails.tasks.{name}": {"message_group": "g"} for name in ("refuse", "wait")}
"""

SET_UP = """
import json, os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
import django
django.setup()
"""


def block(start: str) -> str:
    """Return the code block of the page that starts with a line."""
    (found,) = re.findall(rf"^```\w+\n({re.escape(start)}.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return found


@dataclass
class Shop:
    """A Django project beside the service's package, with running workers."""

    folder: Path
    service: Any

    def python(self, script: str, **variables: str) -> Any:
        """Run a script as a process of the Django project, and return what it prints as JSON."""
        self.service.environment.update(variables)
        try:
            ran = self.service.python("-c", SET_UP + script)
        finally:
            for name in variables:
                del self.service.environment[name]
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])

    def ended(self, task_id: str) -> str:
        """Wait until a worker has logged the final outcome of a task, and return it."""
        return str(eventually(lambda: outcome_in(self.log, task_id)))

    @property
    def log(self) -> str:
        """The logs of the workers."""
        return "\n".join(map(self.service.log, WORKERS))


def write(folder: Path) -> None:
    """Write the Django project and the service's package, as the page says."""
    shutil.copytree(PROJECT / "src" / PACKAGE, folder / "src" / PACKAGE)
    for name, text in FILES.items():
        path = folder / "src" / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name, text in re.findall(r"^```python\n# (src/\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        if "TASKS" in text or "django.tasks" in text:
            continue
        (folder / name).write_text(text, encoding="utf-8")
    if HAS_TASKS:
        groups = block("CELERY_TASK_ANNOTATIONS") if IS_FIFO else ""
        settings = SETTINGS + groups + block("# src/shop/settings.py") + OTHERS
        (folder / "src/shop/settings.py").write_text(settings, "utf-8")
        (folder / "src/shop/emails/tasks.py").write_text(block("# src/shop/emails/tasks.py") + EMAILS, "utf-8")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the service with a Django project, and workers that are ready."""
    folder = tmp_path_factory.mktemp("shop")
    write(folder)
    routes = json.loads("{" + block('"routes"') + "}")["routes"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "path", [str(folder / "src"), *sys.path])
        with running_service(tmp_path_factory.mktemp("logs"), routes=routes) as service:
            made = Shop(folder, service)
            # Of another application in the same process; the service does not read it.
            service.environment["CELERY_BROKER_URL"] = "redis://127.0.0.1:9"
            service.environment["CELERY_RESULT_BACKEND"] = "redis://127.0.0.1:9"
            made.python(
                "from django.core.management import call_command as run; run('migrate', run_syncdb=True); print(1)"
            )
            for worker in WORKERS:
                service.start_worker(worker)
            assert all(service.ready(worker) for worker in WORKERS), made.log
            yield made


PLACE = """
from celery import signals
from django.db import connection, transaction
from shop.orders.services import place

sent, seen = [], []

@signals.before_task_publish.connect
def record(headers, **rest):
    sent.append(headers["id"])

try:
    with transaction.atomic():
        place("rolled back")
        raise ValueError
except ValueError:
    seen.append(len(sent))
with transaction.atomic():
    order = place("Ada")
    seen.append(len(sent))
seen.append(len(sent))
print(json.dumps([seen, sent]))
"""


def test_task_when_sent_on_commit_then_changes_a_model(shop):
    seen, sent = shop.python(PLACE)
    assert seen == [0, 0, 1]
    assert shop.ended(sent[0]) == "succeeded", shop.log
    with sqlite3.connect(shop.folder / "orders.sqlite") as database:
        assert database.execute("SELECT customer, confirmed FROM orders_order").fetchall() == [("Ada", 1)]
    (line,) = (line for line in shop.log.splitlines() if f'"{sent[0]}"' in line)
    assert json.loads(line)["queue"] == contract.celery_name(ROUTED)


def test_connections_when_a_task_has_ended_then_are_closed(shop):
    _, (task_id,) = shop.python(PLACE)
    assert shop.ended(task_id) == "succeeded", shop.log
    sent = shop.service.python("-m", PACKAGE, "send", "shop.orders.tasks.confirm", "1", "--group=g")
    assert shop.ended(sent.stdout.strip()) == "succeeded", sent.stderr

    def notes() -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for line in (shop.folder / "notes").read_text(encoding="utf-8").splitlines():
            process, what = line.split(" ", 1)
            found.setdefault(int(process), []).append(what)
        return found

    for worker in shop.service.workers.values():
        assert notes()[worker.pid] == ["opened", "closed", "closed the pool"]
    parents = {worker.pid for worker in shop.service.workers.values()}
    of_tasks = [what for process, what in notes().items() if process not in parents and what[0] == "closed the pool"]
    used = [[each for each in what if each != "closed the pool"] for what in of_tasks if "opened" in what]
    assert used and all(each == ["opened", "closed"] * (len(each) // 2) for each in used), notes()


SEND_BY_NAME = """
from celery import Celery, current_app, signals
own = Celery("own", broker="memory://")
django.setup = None  # A web process has been set up, and is not again.
exec(os.environ["PAGE"].replace("<queue>", os.environ["QUEUE"]).replace("send_invoice", "measure"))
became_current = current_app.main
own.set_current()
sent = []

@signals.before_task_publish.connect
def record(headers, **rest):
    sent.append(headers["id"])

with transaction.atomic():
    invoice("order-7")
    assert not sent
print(json.dumps([sent, became_current, current_app.main]))
"""


def test_task_when_sent_by_name_from_elsewhere_then_is_done(shop):
    (task_id,), became_current, current = shop.python(SEND_BY_NAME, PAGE=block("from functools"), QUEUE=DEFAULT.module)
    assert shop.ended(task_id) == "succeeded", shop.log
    assert (became_current, current) == ("own", "own")


CONTRADICT = """
from django.core.checks import run_checks
from celery_aws.errors import UnsupportedError
from shop.orders.tasks import confirm
found = [str(message.msg) for message in run_checks() if message.id == "celery_aws.E001"]
try:
    confirm.delay(1)
except UnsupportedError as error:
    found.append(str(error))
print(json.dumps(found))
"""


def test_settings_when_they_contradict_the_contract_then_all_refuse(shop):
    checked, sending = shop.python(CONTRADICT, CONTRADICTS="1")
    assert checked == sending
    assert "CELERY_BROKER_URL is not supported" in sending
    assert "CELERY_TASK_ROUTES" in sending
    assert "routes in contract.json" in sending
    worker = shop.service.start_worker(label="refused", CONTRADICTS="1")
    assert worker.wait(30) != 0
    assert "CELERY_BROKER_URL" in shop.service.log("refused")
    del shop.service.workers["refused"]


ENQUEUE = """
import asyncio
from datetime import timedelta
from django.tasks import default_task_backend
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.utils import timezone
from celery_aws.errors import RefusedError
from shop.emails.tasks import elsewhere, refuse, wait, welcome

def refused(call):
    try:
        call()
    except (InvalidTask, RefusedError) as error:
        return type(error).__name__

result = welcome.using(run_after=timezone.now() + timedelta(seconds=10)).enqueue("Ada")
if default_task_backend.supports_get_result:
    result.refresh()  # Nothing is stored yet.
    asyncio.run(result.arefresh())
assert result.status == "READY" and result.enqueued_at
late = [
    refused(lambda: welcome.using(priority=5)),
    refused(lambda: welcome.using(queue_name="nowhere").enqueue("Ada")),
    refused(lambda: elsewhere.using(backend="default")),
]
last = os.environ["LAST"]
ids = [result.id, refuse.enqueue("no").id, wait.using(queue_name=last).enqueue("done").id]
print(json.dumps([ids, late, [str(each.msg) for each in default_task_backend.check()]]))
"""

READ = """
from django.tasks import default_task_backend
from django.tasks.exceptions import TaskResultDoesNotExist
from shop.emails.tasks import refuse, wait, welcome

def shown(id):
    result = default_task_backend.get_result(id)
    errors = [(error.exception_class.__name__, "in refuse" in error.traceback) for error in result.errors]
    value = result.return_value if result.status == "SUCCESSFUL" else None
    return result.task.name, result.status, value, result.args, errors, bool(result.finished_at)

try:
    print(json.dumps([shown(id) for id in os.environ["IDS"].split()]))
except NotImplementedError:
    print(json.dumps(default_task_backend.supports_get_result))
"""


@needs_tasks
def test_django_task_when_enqueued_then_a_worker_runs_it(shop):
    ids, refused, found = shop.python(ENQUEUE, LAST=ROUTED.name)
    assert (refused, found) == (["InvalidTask", "UnknownQueueError", "InvalidTask"], [])
    assert [shop.ended(task_id) for task_id in ids] == ["succeeded", "dead_lettered", "succeeded"], shop.log
    (line,) = (line for line in shop.log.splitlines() if f'"{ids[0]}"' in line and '"outcome"' in line)
    assert json.loads(line).get("group") == ("customer-Ada" if IS_FIFO else None)
    shown = shop.python(READ, IDS=" ".join(ids))
    if not HAS_RESULTS:
        assert shown is False
        return
    assert shown == [
        ["welcome", "SUCCESSFUL", "Welcome Ada, attempt 1", ["Ada"], [], True],
        ["refuse", "FAILED", None, ["no"], [["ValueError", True]], True],
        ["wait", "SUCCESSFUL", "done", ["done"], [], True],
    ]
    assert "finished welcome SUCCESSFUL" in shop.log
    assert shop.log.count("finished refuse FAILED") == 1
    assert shop.log.count("started refuse RUNNING") == shop.service.contract.default_queue.max_receive_count > 1


@pytest.mark.skipif(HAS_TASKS, reason="Django has tasks")
def test_backend_when_django_has_no_tasks_then_says_so():
    with pytest.raises(ImportError, match="requires Django 6"):
        module("django.tasks")
