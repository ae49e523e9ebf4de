"""Flower: who has the password is let in, from this machine alone. Whether its image works takes containers."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import yaml

from celery_aws.dev.brokers.rabbitmq import free_port
from library.support import CONTRACT, PROJECT, eventually, running_service

LOGIN = "somebody:a/password+with@odd:characters"
FLOWER = yaml.safe_load((PROJECT / "compose.yaml").read_text(encoding="utf-8"))["services"]["flower"]


def test_port_is_open_to_this_machine_alone():
    assert [port.rpartition(":")[0] for port in FLOWER["ports"]] == ["127.0.0.1:5555"]


def test_password_is_the_environments_and_neither_in_a_url_nor_an_argument():
    assert FLOWER["environment"]["FLOWER_BASIC_AUTH"].startswith("${FLOWER_BASIC_AUTH:-")
    assert not [argument for argument in FLOWER["command"] if "auth" in argument or "broker" in argument]


def test_container_has_no_more_rights_than_a_worker():
    assert (FLOWER["read_only"], FLOWER["cap_drop"]) == (True, ["ALL"])
    dockerfile = (PROJECT / FLOWER["build"]["dockerfile"]).read_text(encoding="utf-8")
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["10001"]


def test_image_refuses_to_let_everybody_in():
    dockerfile = (PROJECT / FLOWER["build"]["dockerfile"]).read_text(encoding="utf-8")
    (start,) = (json.loads(found) for found in re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE))
    started = []
    for given in ({}, {"FLOWER_BASIC_AUTH": ""}, {"FLOWER_BASIC_AUTH": LOGIN}):
        environment = {**given, "PATH": os.environ["PATH"]}
        started.append(subprocess.run([*start, "echo", "a b"], env=environment, capture_output=True, text=True))
    assert [(run.returncode == 0, run.stdout) for run in started] == [(False, ""), (False, ""), (True, "a b\n")]
    assert all("FLOWER_BASIC_AUTH" in run.stderr and "everybody" in run.stderr for run in started[:2])


def pins(name):
    text = (PROJECT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)(?=.*\\\n    --hash=sha256:)", text, re.MULTILINE))


def test_what_it_brings_is_pinned_and_no_other_version_of_what_the_service_has():
    flower, service = pins("requirements-flower.txt"), pins("requirements.txt")
    assert "flower" in flower
    shared = flower.keys() & service.keys()
    assert {"celery", "kombu"} <= shared
    assert {name: flower[name] for name in shared} == {name: service[name] for name in shared}


def ask(url, login=""):
    """Return status and content of a page."""
    headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return 0, ""


@pytest.mark.end_to_end
@pytest.mark.skipif(not importlib.util.find_spec("flower"), reason="pip install -r requirements-flower.txt")
def test_it_refuses_whom_it_does_not_know_and_shows_others_the_workers(tmp_path_factory, tmp_path):
    with running_service(tmp_path_factory.mktemp("logs")) as service:
        service.start_worker()
        assert service.ready(), service.log()
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [argument.replace("5555", str(port)) for argument in FLOWER["command"]]
        with (tmp_path / "log").open("w") as log:
            flower = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=tmp_path,
                env={**service.client_environment(), "FLOWER_BASIC_AUTH": LOGIN},
                stdout=log,
                stderr=log,
            )
        try:
            assert eventually(lambda: ask(f"{url}/healthcheck")[0] == 200), (tmp_path / "log").read_text()
            for page in ("/", "/tasks", "/api/workers", "/api/tasks"):
                known = [ask(url + page, login)[0] for login in ("", "somebody:else", LOGIN)]
                assert known == [401, 401, 200], page
            name = eventually(lambda: next(iter(json.loads(ask(f"{url}/api/workers?refresh=1", LOGIN)[1])), ""))
            assert name.startswith(f"{service.queue.name}@")
            status, page = ask(f"{url}/worker/{name}", LOGIN)
            assert (status, CONTRACT["package"] in page) == (200, True)

            def shows_tasks():
                service.send("return_given", 1)
                return json.loads(ask(f"{url}/api/tasks", LOGIN)[1])

            assert eventually(shows_tasks), "Flower enables events within seconds"
        finally:
            flower.kill()  # It takes its time to stop.
            flower.wait()
        for secret in (LOGIN, service.environment["BROKER_PASSWORD"]):
            assert secret not in (tmp_path / "log").read_text()
