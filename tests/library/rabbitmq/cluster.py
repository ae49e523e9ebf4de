"""Three nodes of RabbitMQ on this machine, which can be killed, paused and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_aws.dev.brokers import rabbitmq as development
from library.support import eventually

START_SECONDS = 120


class Node:
    """One of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        ports = {name: development.free_port() for name in ("amqp", "management", "distribution")}
        self.folder = folder
        self.environment = {**os.environ, **development._configure(folder, ports, installed=True)}
        self.name = self.environment["RABBITMQ_NODENAME"]
        self.address = (development.HOST, ports["amqp"])
        self.url = f"amqp://{development.HOST}:{ports['amqp']}"
        self.management = f"http://{development.HOST}:{ports['management']}"

    def join(self, nodes: list[Node]) -> None:
        """Have it form a cluster with others when it starts."""
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text("cluster", encoding="utf-8")
        cookie.chmod(0o400)
        lines = ["cluster_formation.peer_discovery_backend = classic_config"]
        lines += [f"cluster_formation.classic_config.nodes.{n} = {node.name}" for n, node in enumerate(nodes, 1)]
        with (self.folder / "rabbitmq.conf").open("a", encoding="utf-8") as settings:
            settings.write("\n".join([*lines, ""]))

    def start(self) -> None:
        """Start it, and do not wait."""
        command = development._program("rabbitmq-server")
        assert command
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def signal(self, number: int) -> None:
        """Send a signal to its shell and to Erlang."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, path: str) -> Any:
        """Ask its management API; None while it does not answer."""
        try:
            return development.ask(self.management, "GET", path)
        except OSError:
            return None

    def sees(self, count: int) -> bool:
        """Wait until so many nodes run, as it says; return whether they do."""
        return bool(
            eventually(
                lambda: sum(node.get("running", False) for node in self.ask("nodes") or ()) == count, START_SECONDS
            )
        )


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[list[Node]]:
    """Run a cluster; skip the test where no server is installed, except in CI."""
    if not development._program("rabbitmq-server"):
        assert not os.environ.get("CI"), "rabbitmq-server is not installed"
        pytest.skip("rabbitmq-server is not installed")
    nodes = [Node(folder / name) for name in ("a", "b", "c")]
    try:
        for node in nodes:
            node.join(nodes)
            node.start()
        assert nodes[0].sees(3), (nodes[0].folder / "output").read_text(encoding="utf-8")[-3000:]
        yield nodes
    finally:
        for node in nodes:
            node.signal(signal.SIGCONT)
            node.kill()
