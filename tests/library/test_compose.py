"""compose.yaml, which follows from the contract. Whether it works takes containers to tell."""

from __future__ import annotations

import json

import pytest
import yaml

from celery_aws.dev import compose
from library.support import CONTRACT, PROJECT, module, read_variables

SERVICES = yaml.safe_load((PROJECT / "compose.yaml").read_text(encoding="utf-8"))["services"]


def test_compose_file_follows_from_the_contract():
    said = (PROJECT / "compose.yaml").read_text(encoding="utf-8")
    assert said == compose.text(), "compose.yaml is older than contract.json: run `make compose.yaml`"


def test_every_queue_has_a_worker_that_tells_whether_it_is_alive():
    workers = {name: service for name, service in SERVICES.items() if name.startswith("worker-")}
    assert list(workers) == [f"worker-{queue['name']}" for queue in CONTRACT["queues"]]
    for queue, worker in zip(CONTRACT["queues"], workers.values(), strict=True):
        assert worker["command"] == [CONTRACT["service"], "worker", queue["name"]]
        assert worker["healthcheck"]["test"] == ["CMD", CONTRACT["service"], "health", queue["name"]]
        assert worker["stop_grace_period"] == f"{CONTRACT['stop_timeout_seconds']}s"
        assert worker["read_only"]
        assert worker["cap_drop"] == ["ALL"]


def test_a_new_queue_gets_a_worker():
    more = json.loads(json.dumps(CONTRACT))
    more["queues"].append({**more["queues"][0], "name": "one-more"})
    assert set(compose.compose(module("contract").parse(more))["services"]) - set(SERVICES) == {"worker-one-more"}


@pytest.mark.parametrize("name", [name for name in SERVICES if name.startswith("worker-")])
def test_its_environment_is_what_the_service_reads(name, monkeypatch):
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, value)
    assert read_variables()[0].environment == "development"
