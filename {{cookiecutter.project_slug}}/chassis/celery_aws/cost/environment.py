"""What an environment costs by the hour, whether tasks run or not: network, workers, servers, alarms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contract import Contract, Worker
from ..durations import counted
from . import Line, dollars_each

HOURS_PER_MONTH = 730
VOLUME_GB = 20
"""Root volume of an EC2 instance."""
BEAT_VCPU, BEAT_GB = 0.25, 0.5
"""Size of the beat on Fargate; see beat_rabbitmq_ecs.tf."""
BEAT_INSTANCES: Mapping[str, str] = {"ARM64": "t4g.micro", "X86_64": "t3.micro"}
"""Type of the beat's EC2 instance, by architecture; see beat_rabbitmq_ec2.tf."""
NETWORKS = ("nat", "nat_per_zone", "public", "none", "existing", "existing_public")
"""`internet_access` of the Terraform variable `network`, or a VPC that exists, with private or public subnets."""
ENDPOINTS: Mapping[str, frozenset[str]] = {
    "sqs": frozenset({"sqs"}),
    "rabbitmq": frozenset({"secretsmanager", "monitoring"}),
    "keys": frozenset({"secretsmanager"}),
    "ecs": frozenset({"ecr.api", "ecr.dkr", "logs"}),
    "ec2": frozenset({"autoscaling", "ecr.api", "ecr.dkr", "logs", "ssm", "ssmmessages"}),
}
"""Services with an interface endpoint in a network without internet access, by option."""


METRICS_OF_TASK, METRICS_OF_QUEUE, ALARM_METRICS_OF_QUEUE = 5, 2, 3
"""Metrics with `task_metrics`, published and read by alarms; see task_metrics.tf."""


@dataclass(frozen=True)
class Environment:
    """What terraform/environments/<name>.tfvars sets, as far as it has a price."""

    network: str = "nat"
    """One of `NETWORKS`."""
    zones: int = 2
    """Availability Zones of the created network."""
    interface_endpoints: frozenset[str] = frozenset()
    """Further services with an interface endpoint in the created network."""
    architecture: str = "ARM64"
    broker_type: str = "mq.m7g.medium"
    """Instance type of the RabbitMQ broker."""
    broker_nodes: int = 1
    """Instances of the RabbitMQ broker: one, or a cluster of three."""
    broker_gb: float = 5
    """Storage of each of them."""
    result_type: str = "cache.t4g.micro"
    """Node type of the Redis or Valkey for results."""
    result_nodes: int = 2
    tasks: int = 10
    """Tasks that run at least once an hour, for `task_metrics`; in no file."""


def read_environment(name: str, folder: Path) -> Environment:
    """Return what a file of Terraform variables sets; what it does not set has the module's default.

    Raises:
        OSError: there is no such file.
    """
    text = re.sub(r"(#|//).*", "", (folder / f"{name}.tfvars").read_text(encoding="utf-8"))

    def value(key: str, default: str) -> str:
        found = re.search(rf'\b{key}\s*=\s*"?([A-Za-z0-9_.-]+)', text)
        return found[1] if found else default

    def texts(key: str) -> list[str]:
        found = re.search(rf"\b{key}\s*=\s*\[([^]]*)\]", text)
        return re.findall(r'"([^"]+)"', found[1]) if found else []

    network = value("internet_access", "nat")
    if value("vpc_id", ""):
        network = "existing_public" if network == "public" else "existing"
    return Environment(
        network=network,
        zones=len(texts("availability_zones")) or Environment.zones,
        interface_endpoints=frozenset(texts("interface_endpoints")),
        architecture=value("architecture", Environment.architecture).upper(),
        broker_type=value("instance_type", Environment.broker_type),
        broker_nodes=3 if value("deployment_mode", "") == "CLUSTER_MULTI_AZ" else 1,
        result_type=value("node_type", Environment.result_type),
        result_nodes=int(value("nodes", str(Environment.result_nodes))),
    )


def environment_lines(contract: Contract, environment: Environment, prices: Mapping[str, Any]) -> list[Line]:
    """Return the items of a month's bill that do not depend on the number of tasks, for each worker at its `min`."""
    made = []
    for item in (
        *_network(contract, environment),
        *_workers(contract, environment),
        *_beat(contract, environment),
        *_servers(contract, environment),
        *_monitoring(contract, environment),
    ):
        dollars = dollars_each(prices[item.price], item.instance_type)
        shown = f"${dollars:g}" if dollars is not None else "price not known"
        formula = f"{item.units} x {item.hours} hours x {shown}" if item.hours > 1 else f"{item.units} x {shown}"
        if item.count:
            made.append(Line(item.what, formula, item.count * item.hours, item.price, dollars))
    return made


@dataclass(frozen=True)
class Item:
    """Something of an environment that has a price."""

    what: str
    units: str
    """How many there are, as a text."""
    count: float
    price: str
    """Name of the price."""
    hours: int = 1
    """Of a month, if it is paid for by the hour."""
    instance_type: str = ""
    """If the price depends on it."""


def _network(contract: Contract, environment: Environment) -> Iterator[Item]:
    workers = sum(worker.min for worker in contract.workers) + contract.has_beat
    if environment.network in ("nat", "nat_per_zone"):
        gateways = environment.zones if environment.network == "nat_per_zone" else 1
        yield Item("NAT gateways", str(gateways), gateways, "nat_gateway_hour", HOURS_PER_MONTH)
        yield Item("their public addresses", str(gateways), gateways, "public_address_hour", HOURS_PER_MONTH)
    elif environment.network.endswith("public"):
        yield Item("workers' public addresses", str(workers), workers, "public_address_hour", HOURS_PER_MONTH)
    services = interface_services(contract, environment)
    units = f"{len(services)} services x {environment.zones} zones"
    yield Item("VPC endpoints", units, len(services) * environment.zones, "endpoint_hour", HOURS_PER_MONTH)


def interface_services(contract: Contract, environment: Environment) -> frozenset[str]:
    """Return the services that have an interface endpoint; those in an existing VPC are not the environment's."""
    if environment.network.startswith("existing"):
        return frozenset()
    needed = [ENDPOINTS.get(option, frozenset()) for option in contract.option_names]
    needed += [frozenset({"scheduler"})] if contract.long_delays else []
    return environment.interface_endpoints.union(*(needed if environment.network == "none" else []))


def _workers(contract: Contract, environment: Environment) -> Iterator[Item]:
    least = sum(worker.min for worker in contract.workers)
    if contract.compute == "ecs":
        kind = environment.architecture.lower()
        vcpu = sum(worker.min * worker.cpu_units for worker in contract.workers) / 1024
        memory = sum(worker.min * worker.memory_mib for worker in contract.workers) / 1024
        yield Item("workers' vCPU on Fargate", f"{vcpu:g} vCPU", vcpu, f"{kind}_vcpu_hour", HOURS_PER_MONTH)
        yield Item("workers' memory on Fargate", f"{memory:g} GB", memory, f"{kind}_gb_hour", HOURS_PER_MONTH)
    else:
        for kind in dict.fromkeys(worker.instance_type for worker in contract.workers):
            count = sum(worker.min for worker in contract.workers if worker.instance_type == kind)
            yield Item(f"workers' {kind} instances", str(count), count, "instance_hour", HOURS_PER_MONTH, kind)
        yield Item("workers' volumes", f"{least} x {VOLUME_GB} GB", least * VOLUME_GB, "volume_gb")


def _beat(contract: Contract, environment: Environment) -> Iterator[Item]:
    if not contract.has_beat:
        return
    if contract.compute == "ecs":
        kind = environment.architecture.lower()
        yield Item("the beat's vCPU on Fargate", f"{BEAT_VCPU:g} vCPU", BEAT_VCPU, f"{kind}_vcpu_hour", HOURS_PER_MONTH)
        yield Item("the beat's memory on Fargate", f"{BEAT_GB:g} GB", BEAT_GB, f"{kind}_gb_hour", HOURS_PER_MONTH)
    else:
        kind = BEAT_INSTANCES[environment.architecture]
        yield Item(f"the beat's {kind} instance", "1", 1, "instance_hour", HOURS_PER_MONTH, kind)
        yield Item("the beat's volume", f"{VOLUME_GB} GB", VOLUME_GB, "volume_gb")


def _servers(contract: Contract, environment: Environment) -> Iterator[Item]:
    if _broker(contract) == "rabbitmq":
        kind, nodes, gb = environment.broker_type, environment.broker_nodes, environment.broker_gb
        yield Item(f"broker's {kind} instances", str(nodes), nodes, "broker_hour", HOURS_PER_MONTH, kind)
        yield Item("broker's storage", f"{nodes} x {gb:g} GB", nodes * gb, "broker_storage")
    if contract.results == "redis":
        kind, nodes = environment.result_type, environment.result_nodes
        yield Item(f"result backend's {kind} nodes", str(nodes), nodes, "node_hour", HOURS_PER_MONTH, kind)
    secrets = (contract.credentials == "keys") + (_broker(contract) == "rabbitmq")
    yield Item("secrets", str(secrets), secrets, "secret")


def _monitoring(contract: Contract, environment: Environment) -> Iterator[Item]:
    metrics = alarm_metrics(contract, environment)
    yield Item("alarms, by metric", str(metrics), metrics, "alarm_metric")
    yield Item("dashboard", "1", 1, "dashboard")
    if _broker(contract) == "rabbitmq":  # Published by the workers, see reporting.py, and from the beat's logs.
        published = 3 * len(contract.queues) + contract.has_beat
        yield Item("published metrics", str(published), published, "custom_metric")
    if contract.task_metrics:
        tasks, queues = environment.tasks, len(contract.queues)
        units = f"({counted(tasks, 'task')} x {METRICS_OF_TASK} + {counted(queues, 'queue')} x {METRICS_OF_QUEUE})"
        count = tasks * METRICS_OF_TASK + queues * METRICS_OF_QUEUE
        yield Item("metrics of tasks", units, count, "custom_metric")


def alarm_metrics(contract: Contract, environment: Environment) -> int:
    """Return how many metrics the alarms read, each of which is charged; target tracking has alarms, too."""
    is_sqs = _broker(contract) == "sqs"
    total = 4 * len(contract.queues) if is_sqs else 2 * len(contract.queues) + 5
    for worker in contract.workers:
        total += _alarm_metrics_of(worker, is_sqs) + (2 if contract.compute == "ecs" else 1)
    total += 2 * contract.has_beat + contract.uses_scheduler
    total += ALARM_METRICS_OF_QUEUE * len(contract.queues) * contract.task_metrics
    return total + (2 * environment.result_nodes if contract.results == "redis" else 0)


def _alarm_metrics_of(worker: Worker, is_sqs: bool) -> int:
    queues = len(worker.queues)
    tracking = 2 * (queues + 1)
    if not is_sqs:
        return tracking + queues
    no_consumers = 2 * queues + (2 if queues <= 4 else 0)
    to_zero = (queues + 1) + (3 if queues <= 3 else 2) * queues if worker.min == 0 else 0
    return tracking + no_consumers + to_zero


def _broker(contract: Contract) -> str:
    return contract.broker.partition("-")[0]
