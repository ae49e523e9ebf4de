"""A RabbitMQ: the server that is installed here, or else one in a container."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
FLOWER_PORT = 5555
IMAGE = "docker.io/library/rabbitmq:4.2-management-alpine"
PATIENCE_SECONDS = 90

URL_IN_CONTAINERS = "amqp://broker:5672"
MANAGEMENT_IN_CONTAINERS = "http://broker:15672"

USERNAME = "developer"
PASSWORD = "rabbit/with+odd@characters"  # noqa: S105 - of a broker on this machine alone

UNREACHABLE: dict[str, str] = {
    "BROKER_URL": "amqp://127.0.0.1:9",
    "BROKER_USERNAME": USERNAME,
    "BROKER_PASSWORD": PASSWORD,
    "BROKER_MANAGEMENT_URL": "http://127.0.0.1:9",
}
"""Environment variables that fit and lead nowhere, for tests that want no broker."""

RUNNING = "RABBITMQ_RUNNING"
"""Environment variable with the address of a server that runs already; tests start one for all of them."""

SETTINGS = """\
loopback_users = none
default_user = {user}
default_pass = {password}
log.console = true
log.console.level = error
log.file = false
disk_free_limit.absolute = 50MB
collect_statistics_interval = 500
"""
HURRY = "[{rabbit, [{quorum_tick_interval, 500}]}].\n"
"""Counts of messages that are half a second old at the most, instead of five."""

# Before what is on the path: Debian's command there wants to become another user.
PLACES = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin")


class NoBrokerError(FileNotFoundError):
    """There is nothing here that could run RabbitMQ."""


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    url: str
    management: str
    """URL of its management API."""
    environment: dict[str, str]
    """The environment variables that it was started with."""

    @property
    def address(self) -> str:
        """What to put into `RUNNING`."""
        return f"{self.url} {self.management}"

    def restart(self) -> None:
        """Stop the broker inside the server and start it again, which cuts every connection.

        Raises:
            OSError: there is no rabbitmqctl here.
            subprocess.CalledProcessError: it failed.
        """
        for step in ("stop_app", "start_app"):
            command = [str(_program("rabbitmqctl")), "--quiet", step]
            subprocess.run(command, env=self.environment, check=True, timeout=PATIENCE_SECONDS)


def prepare_moto() -> None:
    """Leave moto as it is: it is not the broker here."""


def in_containers(contract: Any, url: str, environment: str) -> tuple[dict[str, Any], dict[str, str], str]:
    """Return services and variables for compose.yaml, and the Python that succeeds if the emulator is ready."""
    ready = "import boto3; boto3.client('sts').get_caller_identity()"
    server = {
        "image": IMAGE,
        "environment": {"RABBITMQ_DEFAULT_USER": USERNAME, "RABBITMQ_DEFAULT_PASS": PASSWORD},
        "healthcheck": {
            "test": ["CMD", "rabbitmq-diagnostics", "-q", "check_port_connectivity"],
            "interval": "5s",
            "timeout": "10s",
            "retries": 20,
        },
        "ports": ["127.0.0.1:15672:15672"],
        "restart": "unless-stopped",
    }
    variables = {
        RUNNING: f"{URL_IN_CONTAINERS} {MANAGEMENT_IN_CONTAINERS}",
        "BROKER_URL": URL_IN_CONTAINERS,
        "BROKER_USERNAME": USERNAME,
        "BROKER_PASSWORD": PASSWORD,
        "BROKER_MANAGEMENT_URL": MANAGEMENT_IN_CONTAINERS,
    }
    return {"broker": server}, variables, ready


def beside(contract: Any, contained: dict[str, Any]) -> dict[str, Any]:
    """Return the services for compose.yaml that look at the workers: Flower, if `--profile flower` asks for it."""
    # The default is for this machine, where alone the port is open. Neither in a URL nor among the
    # arguments, which all could see: https://flower.readthedocs.io/en/latest/auth.html
    password = "${FLOWER_BASIC_AUTH:-developer:this-machine-alone}"  # noqa: S105
    ready = f"import urllib.request; urllib.request.urlopen('http://{HOST}:{FLOWER_PORT}/healthcheck')"
    flower = {
        "build": {"context": ".", "dockerfile": "flower.Dockerfile"},
        "image": f"{contract.service}-flower",
        "profiles": ["flower"],
        **contained,
        "environment": {**contained["environment"], "FLOWER_BASIC_AUTH": password},
        "command": ["celery", f"--app={contract.package}", "flower", f"--port={FLOWER_PORT}"],
        "ports": [f"{HOST}:{FLOWER_PORT}:{FLOWER_PORT}"],
        "healthcheck": {"test": ["CMD", "python", "-c", ready], "interval": "10s", "start_period": "30s"},
    }
    return {"flower": flower}


def create(
    contract: Any, url: str, environment: str, visibility_timeout_seconds: int | None, stack: ExitStack
) -> dict[str, str]:
    """Run a server, or take one that runs already; return the environment variables that lead there.

    The service declares its queues itself. Each caller has a virtual host of its own.

    Raises:
        NoBrokerError: neither rabbitmq-server nor a container engine is here.
        TimeoutError: it did not start in time.
    """
    address, management = (os.environ.get(RUNNING) or stack.enter_context(server()).address).split()
    if address == URL_IN_CONTAINERS:
        return {}  # Whoever needs it has been told already.
    virtual_host = uuid.uuid4().hex[:12]
    ask(management, "PUT", f"vhosts/{virtual_host}")
    every = dict.fromkeys(("configure", "write", "read"), ".*")
    ask(management, "PUT", f"permissions/{virtual_host}/{USERNAME}", every)
    stack.callback(_forget, management, virtual_host)
    return {
        "BROKER_URL": f"{address}/{virtual_host}",
        "BROKER_USERNAME": USERNAME,
        "BROKER_PASSWORD": PASSWORD,
        "BROKER_MANAGEMENT_URL": management,
    }


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """Run a server that keeps nothing.

    Raises:
        NoBrokerError: neither rabbitmq-server nor a container engine is here.
        TimeoutError: it did not start in time.
    """
    ports = {name: free_port() for name in ("amqp", "management", "distribution")}
    folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
    program = _program("rabbitmq-server")
    engine = next(filter(None, map(shutil.which, ("docker", "podman"))), None)
    if not program and not engine:
        raise NoBrokerError("neither rabbitmq-server nor docker is here: install one of them to run RabbitMQ")
    settings = SETTINGS.format(user=USERNAME, password=PASSWORD)
    if program:
        settings += f"listeners.tcp.1 = {HOST}:{ports['amqp']}\n"
        settings += f"management.tcp.ip = {HOST}\nmanagement.tcp.port = {ports['management']}\n"
    (folder / "rabbitmq.conf").write_text(settings, encoding="utf-8")
    (folder / "advanced.config").write_text(HURRY, encoding="utf-8")
    (folder / "plugins").write_text("[rabbitmq_management].\n", encoding="utf-8")
    environment = {
        **os.environ,
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"service-{ports['amqp']}@localhost",
        "RABBITMQ_DIST_PORT": str(ports["distribution"]),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
    }
    command = [program] if program else _container(str(engine), folder, ports)
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Out of reach of the terminal's Ctrl-C, like the emulator.
        )
    try:
        management = f"http://{HOST}:{ports['management']}"
        _wait_for(management, process, folder / "output")
        yield Server(f"amqp://{HOST}:{ports['amqp']}", management, environment)
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _container(engine: str, folder: Path, ports: dict[str, int]) -> list[str]:
    """Return the command that runs the server in a container."""
    inside = {"rabbitmq.conf": "rabbitmq.conf", "advanced.config": "advanced.config", "plugins": "enabled_plugins"}
    mounts = [f"--volume={folder / ours}:/etc/rabbitmq/{theirs}:ro" for ours, theirs in inside.items()]
    published = [f"--publish={HOST}:{ports['amqp']}:5672", f"--publish={HOST}:{ports['management']}:15672"]
    return [engine, "run", "--rm", "--init", *published, *mounts, IMAGE]


def _wait_for(management: str, process: subprocess.Popen[bytes], output: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            ask(management, "GET", "overview")
            return
        except (OSError, ValueError):
            if process.poll() is not None or time.monotonic() > end:
                said = output.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise TimeoutError(f"RabbitMQ did not start:\n{said}") from None
            time.sleep(0.2)


def ask(management: str, method: str, path: str, content: Any = None) -> Any:
    """Ask the management API.

    Raises:
        OSError: it cannot be reached, or says no.
    """
    token = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - a server of this machine
        f"{management}/api/{path}",
        json.dumps(content or {}).encode() if method != "GET" else None,
        {"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.loads(answer.read() or b"null")


def _program(name: str) -> str | None:
    """Return where a program of an installed RabbitMQ is, if there is one."""
    return shutil.which(name, path=os.pathsep.join((*PLACES, os.environ.get("PATH", ""))))


def _forget(management: str, virtual_host: str) -> None:
    with contextlib.suppress(OSError):
        ask(management, "DELETE", f"vhosts/{virtual_host}")


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
