"""Writes compose.yaml: the image of this service, at work on the emulator, in containers.

`make compose.yaml` runs it whenever the contract has changed. What is your own goes into
compose.override.yaml, which Compose merges by itself.
https://docs.docker.com/compose/how-tos/multiple-compose-files/merge/
"""

from __future__ import annotations

from typing import Any

import yaml

from ..contract import read
from . import brokers, emulator, results

TARGET = emulator.PROJECT / "compose.yaml"
PORT = 4566
HEADER = """\
# Made from contract.json by `make compose.yaml`; what is your own belongs into compose.override.yaml.
# `docker compose up --build` runs what `make dev` runs, in the containers that AWS will run.
"""


def compose(contract: Any) -> dict[str, Any]:
    """Return the content of compose.yaml: a worker for each queue, as on AWS, the emulator and a sender."""
    url, broker = f"http://emulator:{PORT}", brokers.chosen(contract)
    broker_services, broker_environment, ready = broker.in_containers(contract, url, emulator.ENVIRONMENT)
    result_services, result_environment = results.in_containers(contract)
    environment = {**emulator.environment_of(contract, url), **broker_environment, **result_environment}
    healthy = {"condition": "service_healthy"}
    after_aws = {"depends_on": dict.fromkeys(["emulator", *broker_services, *result_services], healthy)}
    # As Terraform has it; and without capabilities, of which a worker needs none.
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
    for queue in contract.queues:
        services[f"worker-{queue.name}"] = {
            "build": ".",
            "image": service,
            **contained,
            "command": [service, "worker", queue.name],
            "stop_grace_period": f"{contract.stop_timeout_seconds}s",
            "healthcheck": {
                "test": ["CMD", service, "health", queue.name],
                "interval": "30s",
                "timeout": "10s",
                "retries": 3,
                "start_period": "60s",
            },
            **after_aws,
        }
    services["sender"] = {**development, "command": ["python", "-m", "celery_aws.dev.sender"], **after_aws}
    services.update(broker.beside(contract, {**contained, **after_aws}))
    return {"name": service, "services": services}


def text() -> str:
    """Return compose.yaml as it should be."""
    contract = read(emulator.PROJECT / "contract.json")
    return HEADER + yaml.dump(compose(contract), Dumper=Dumper, sort_keys=False, width=120)


class Dumper(yaml.SafeDumper):
    """Writes as people do: lists in one line, and each service whole rather than by `&id001`."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return that nothing refers to something above."""
        return True


Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
