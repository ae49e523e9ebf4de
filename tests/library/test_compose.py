"""compose.yaml, which follows from the contract. Whether it works takes containers to tell."""

from __future__ import annotations

import json

import pytest
import yaml

from celery_aws.dev import compose, emulator
from library.support import BROKER, CONTRACT, PROJECT, module, read_variables

SERVICES = yaml.safe_load((PROJECT / "compose.yaml").read_text(encoding="utf-8"))["services"]


def test_compose_file_follows_from_the_contract():
    said = (PROJECT / "compose.yaml").read_text(encoding="utf-8")
    assert said == compose.text(), "compose.yaml is older than contract.json: run `make compose.yaml`"


def test_compose_file_when_written_then_each_worker_has_a_health_check():
    names = [worker.name for worker in module("contract").parse(CONTRACT).workers]
    workers = {name: service for name, service in SERVICES.items() if name.startswith("worker-")}
    assert list(workers) == [f"worker-{name}" for name in names]
    for name, worker in zip(names, workers.values(), strict=True):
        assert worker["command"] == [CONTRACT["service"], "worker", name]
        assert worker["healthcheck"]["test"] == ["CMD", CONTRACT["service"], "health", name]
        assert worker["stop_grace_period"] == f"{CONTRACT['stop_timeout_seconds']}s"
        assert worker["read_only"]
        assert worker["cap_drop"] == ["ALL"]


def test_own_variables_when_set_for_development_then_are_those_of_every_service(tmp_path, monkeypatch):
    (tmp_path / "development.env").write_text("OWN=$a b\nENVIRONMENT=production\n", encoding="utf-8")
    monkeypatch.setattr(emulator, "OWN_VARIABLES", tmp_path / "development.env")
    services = compose.compose(module("contract").parse(CONTRACT))["services"]
    own = [service["environment"] for name, service in services.items() if name.startswith(("worker-", "producer"))]
    assert own and all((each["OWN"], each["ENVIRONMENT"]) == ("$$a b", "development") for each in own)


def test_a_new_queue_gets_a_worker():
    more = json.loads(json.dumps(CONTRACT))
    more["queues"].append({"name": "one-more"})
    assert set(compose.compose(module("contract").parse(more))["services"]) - set(SERVICES) == {"worker-one-more"}


def test_schedules_get_a_beat():
    more = json.loads(json.dumps(CONTRACT))
    more["schedules"] = [{"name": "nightly", "task": "any", "rate_minutes": 1, "group": "g"}]
    services = compose.compose(module("contract").parse(more))["services"]
    assert set(services) - set(SERVICES) == {"beat"}
    beat, worker = services["beat"], next(each for name, each in services.items() if name.startswith("worker-"))
    assert beat["command"] == [CONTRACT["service"], "beat"]
    assert beat["healthcheck"]["test"] == ["CMD", CONTRACT["service"], "health", "Beat"]
    different = {"command", "healthcheck", "stop_grace_period"}
    assert {key: beat.get(key) for key in worker if key not in different} == {
        key: value for key, value in worker.items() if key not in different
    }


@pytest.mark.skipif(BROKER != "sqs", reason="on RabbitMQ, remote control needs no table")
def test_remote_control_gets_its_table():
    having = module("contract").parse({**CONTRACT, "remote_control": True})
    environment = compose.compose(having)["services"][f"worker-{having.workers[0].name}"]["environment"]
    assert environment["CONTROL_TABLE"] == having.control_table_name("development")


@pytest.mark.parametrize("name", [name for name in SERVICES if name.startswith("worker-")])
def test_its_environment_is_what_the_service_reads(name, monkeypatch):
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, value)
    assert read_variables()[0].environment == "development"
