"""The web applications that docs/ shows are run as they stand, with real workers."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import subprocess
import sys
import uuid

import httpx
import pytest

from library.support import CONTRACT, HAS_RESULTS, PROJECT, eventually, running_service

pytestmark = pytest.mark.end_to_end

README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGES = {name: (PROJECT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("fastapi", "outbox")}

SETTINGS = """
from pathlib import Path
SECRET_KEY = "of a test"
USE_TZ = True
INSTALLED_APPS = []
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).with_name("django.db")}}}}
{page}
"""
"""What an owner of a Django project has already."""

PLACE = """
from shop.orders import Base, Order, engine, outbox, place
from sqlalchemy import func, select
from sqlalchemy.orm import Session
Base.metadata.create_all(engine)
print(place("hear me"))
outbox.at_commit = False
print(place("hear me, too"))
with Session(engine) as session:
    assert session.scalar(select(func.count()).select_from(Order)) == 2
"""

PLACE_IN_DJANGO = """
import django, json, sys
django.setup()
from django.db import transaction
from django.test import RequestFactory
from celery_aws.outbox.django.models import OutboxMessage
from shop.views import place
print(json.loads(place(RequestFactory().post("/", {"text": "hear me"})).content)["task_id"])
assert not OutboxMessage.objects.exists()
transaction.on_commit = lambda *_, **__: None  # As if the process were killed.
print(json.loads(place(RequestFactory().post("/", {"text": "hear me, too"})).content)["task_id"])
assert OutboxMessage.objects.count() == 1
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The service with the task of its README, and a folder with the applications of the pages."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").touch()
    for page in PAGES.values():
        for path, code in re.findall(r"^```python\n# (shop/\S+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
            text = SETTINGS.format(page=code) if path.endswith("settings.py") else code
            (folder / path).write_text(text, encoding="utf-8")
    (tasks,) = PROJECT.glob(f"src/*/tasks/{CONTRACT['queues'][0]['name'].replace('-', '_')}.py")
    before = tasks.read_text(encoding="utf-8")
    shown = re.search(r"(@app\.task\n +def shout.*?)```", README, re.DOTALL)[1]
    tasks.write_text(before + "\n\n" + re.sub(r"^   ", "", shown, flags=re.MULTILINE), encoding="utf-8")
    try:
        with running_service(tmp_path_factory.mktemp("logs")) as service:
            service.environment["DATABASE_URL"] = f"sqlite:///{folder / 'orders.db'}"
            service.start_worker()
            assert service.ready(), service.log()
            yield service, folder
    finally:
        tasks.write_text(before, encoding="utf-8")


def start(shop, *arguments, **variables):
    service, folder = shop
    environment = {**service.client_environment(), **variables}
    environment["PYTHONPATH"] += f":{folder}"
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def python(shop, *arguments, **variables):
    """Run Python beside the applications, and return the lines that it prints."""
    process = start(shop, *arguments, **variables)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output.splitlines()


def succeeded(service, task_id):
    """Return the log lines of a task that has succeeded, as soon as there is one."""

    def found():
        lines = [json.loads(line) for line in service.log().splitlines() if task_id in line and line.startswith("{")]
        return [line for line in lines if line.get("outcome") == "succeeded"]

    return eventually(found)


@contextlib.contextmanager
def web(shop):
    """Run the FastAPI application, and yield a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start(shop, "-m", "uvicorn", "shop.main:app", f"--port={port}")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

            def answers():
                with contextlib.suppress(httpx.TransportError):
                    return client.get("/openapi.json").status_code == 200

            assert eventually(answers), process.kill() or process.communicate()
            yield client
    finally:
        process.terminate()
        print(process.communicate(timeout=30)[0])


def test_fastapi_page_when_run_then_sends_with_the_request_id(shop):
    service, _ = shop
    with web(shop) as client:
        posted = client.post("/shouts", json={"text": "hear me", "customer": "7"}, headers={"X-Request-ID": "r-7"})
        assert (posted.status_code, posted.headers["X-Request-ID"]) == (202, "r-7")
        task_id = posted.json()["task_id"]
        (line,) = succeeded(service, task_id)
        assert line["request_id"] == "r-7"
        refused = client.post("/shouts", json={"text": "hear me", "customer": "two words"})
        assert (refused.status_code, "MessageGroupId" in refused.text) == (422, True)
        assert refused.headers["X-Request-ID"]
        if not HAS_RESULTS:
            return
        assert client.get(f"/shouts/{task_id}/result").json() == {"result": "HEAR ME"}
        assert client.get(f"/shouts/{task_id}").json() == {"state": "SUCCESS", "result": "HEAR ME"}
        assert client.get(f"/shouts/{uuid.uuid4()}").json() == {"state": "PENDING"}
        assert client.get("/shouts/none").status_code == 422


def test_outbox_page_when_run_with_sqlalchemy_then_sends(shop):
    service, _ = shop
    at_once, later = python(shop, "-c", PLACE)
    assert succeeded(service, at_once)
    assert later not in service.log()
    relay = start(shop, "-m", "shop.relay")
    try:
        assert succeeded(service, later), service.log()
    finally:
        relay.terminate()
        relay.communicate(timeout=30)


def test_outbox_page_when_run_with_django_then_sends(shop):
    service, _ = shop
    run = functools.partial(python, shop, DJANGO_SETTINGS_MODULE="shop.settings")
    run("-m", "django", "migrate")
    at_once, later = run("-c", PLACE_IN_DJANGO)
    assert succeeded(service, at_once)
    assert later not in service.log()
    assert run("-m", "django", "relay_outbox", "--once") == ["sent 1, refused 0, waiting 0"]
    assert succeeded(service, later), service.log()
