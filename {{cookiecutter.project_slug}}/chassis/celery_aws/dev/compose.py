"""Generates compose.yaml: the service's image with the emulator, in containers.

`make compose.yaml` runs it after the contract has changed. Put your own settings into
compose.override.yaml, which Compose merges automatically.
https://docs.docker.com/compose/how-tos/multiple-compose-files/merge/
"""

from __future__ import annotations

from typing import Any

import yaml

from ..contract import BEAT, read
from . import brokers, emulator, results

TARGET = emulator.PROJECT / "compose.yaml"
PORT = 4566
HEADER = """\
# Generated from contract.json by `make compose.yaml`; put your own settings into compose.override.yaml.
# `docker compose up --build` runs the same as `make dev`, in the containers that AWS runs.
"""


def compose(contract: Any) -> dict[str, Any]:
    """Return the content of compose.yaml: the workers, the beat, the emulator and a producer."""
    url, broker = f"http://emulator:{PORT}", brokers.chosen(contract)
    broker_services, broker_environment, ready = broker.in_containers(contract, url, emulator.ENVIRONMENT)
    result_services, result_environment = results.in_containers(contract)
    environment = {
        **{name: value.replace("$", "$$") for name, value in emulator.own_variables().items()},
        **emulator.environment_of(contract, url),
        **broker_environment,
        **result_environment,
    }
    healthy = {"condition": "service_healthy"}
    after_aws = {"depends_on": dict.fromkeys(["emulator", *broker_services, *result_services], healthy)}
    # As in Terraform, and without capabilities, which a worker does not need.
    contained = {
        "environment": environment,
        "init": True,
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108 - the container's own
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
    }
    service = contract.service
    development = {"build": {"context": ".", "target": "development"}, "image": f"{service}-development", **contained}
    services: dict[str, Any] = {
        "emulator": {
            **development,
            "environment": {**environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}"},
            "command": ["python", "-m", "celery_aws.dev.emulator", "--host", "0.0.0.0", "--port", str(PORT)],  # noqa: S104
            "ports": [f"127.0.0.1:{PORT}:{PORT}"],
            "stdin_open": True,
            "healthcheck": {"test": ["CMD", "python", "-c", ready], "interval": "3s", "retries": 20},
        },
        **broker_services,
        **result_services,
    }
    image = {"build": ".", "image": service, **contained}
    for worker in contract.workers:
        services[f"worker-{worker.name}"] = {
            **image,
            "command": [service, "worker", worker.name],
            "stop_grace_period": f"{contract.stop_timeout_seconds}s",
            "healthcheck": _health_check(service, worker.name),
            **after_aws,
        }
    if contract.schedules:
        beat = {"command": [service, "beat"], "healthcheck": _health_check(service, BEAT)}
        services["beat"] = {**image, **beat, **after_aws}
    services["producer"] = {**development, "command": ["python", "-m", "celery_aws.dev.producer"], **after_aws}
    services.update(broker.tools_in_containers(contract, {**contained, **after_aws}))
    return {"name": service, "services": services}


def _health_check(service: str, name: str) -> dict[str, Any]:
    test = ["CMD", service, "health", name]
    return {"test": test, "interval": "30s", "timeout": "10s", "retries": 3, "start_period": "60s"}


def text() -> str:
    """Return the text of compose.yaml for the current contract."""
    contract = read(emulator.PROJECT / "contract.json")
    return HEADER + yaml.dump(compose(contract), Dumper=Dumper, sort_keys=False, width=120)


class Dumper(yaml.SafeDumper):
    """Writes lists in one line, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True, so that repeated values are written in full."""
        return True


Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
