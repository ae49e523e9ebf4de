"""RabbitMQ for development and tests: the installed server, or one in a container."""

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
TIMEOUT_SECONDS = 90

URL_IN_CONTAINERS = "amqp://broker:5672"
MANAGEMENT_IN_CONTAINERS = "http://broker:15672"

USERNAME = "developer"
PASSWORD = "rabbit/with+odd@characters"  # noqa: S105 - of a broker on this machine alone

RUNNING = "RABBITMQ_RUNNING"
"""Environment variable with the address of a running server; all tests share one."""

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
FAST_CHECKS = "[{rabbit, [{quorum_tick_interval, 500}, {channel_tick_interval, 1000}]}].\n"
"""Updates message counts every half second instead of every five, and checks consumer timeouts every second
instead of every minute."""

PROGRAM_FOLDERS = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin")
"""Searched after PATH."""
DEBIAN_WRAPPER = "rabbitmq-script-wrapper"
"""Debian's programs in PATH are links to this script, which switches to another user. The programs are beside it."""


class NoBrokerError(FileNotFoundError):
    """Neither RabbitMQ nor a container engine is installed."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    management: str
    """URL of its management API."""
    environment: dict[str, str]
    """Environment variables of its process."""
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """The value for `RUNNING`."""
        return f"{self.url} {self.management}"

    def restart(self) -> None:
        """Restart the broker inside the server, which closes all connections.

        Raises:
            OSError: rabbitmqctl is not installed.
            subprocess.CalledProcessError: rabbitmqctl failed.
        """
        for step in ("stop_app", "start_app"):
            command = [str(_program("rabbitmqctl")), "--quiet", step]
            subprocess.run(command, env=self.environment, check=True, timeout=TIMEOUT_SECONDS)


def unreachable(contract: Any) -> dict[str, str]:
    """Return valid environment variables of an unreachable broker, for tests that need none."""
    return {
        "BROKER_URL": "amqp://127.0.0.1:9",
        "BROKER_USERNAME": USERNAME,
        "BROKER_PASSWORD": PASSWORD,
        "BROKER_MANAGEMENT_URL": "http://127.0.0.1:9",
    }


def prepare_moto() -> None:
    """Do nothing: moto does not emulate this broker."""


def in_containers(contract: Any, url: str, environment: str) -> tuple[dict[str, Any], dict[str, str], str]:
    """Return services and environment variables for compose.yaml, and Python code that checks the emulator."""
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


def tools_in_containers(contract: Any, contained: dict[str, Any]) -> dict[str, Any]:
    """Return further services for compose.yaml: Flower, in the profile `flower`."""
    # The port is open on localhost only. In an environment variable, because arguments and URLs are
    # visible to other users: https://flower.readthedocs.io/en/latest/auth.html
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
    """Run a server, or use the one in `RUNNING`; return the environment variables for the service.

    Each caller gets its own virtual host, in which the service declares its queues.

    Raises:
        NoBrokerError: neither rabbitmq-server nor a container engine is installed.
        TimeoutError: the server did not start in time.
    """
    address, management = (os.environ.get(RUNNING) or _started(stack).address).split()
    if address == URL_IN_CONTAINERS:
        return {}  # compose.yaml has the environment variables.
    virtual_host = uuid.uuid4().hex[:12]
    ask(management, "PUT", f"vhosts/{virtual_host}")
    every = dict.fromkeys(("configure", "write", "read"), ".*")
    ask(management, "PUT", f"permissions/{virtual_host}/{USERNAME}", every)
    stack.callback(_delete_virtual_host, management, virtual_host)
    return {
        "BROKER_URL": f"{address}/{virtual_host}",
        "BROKER_USERNAME": USERNAME,
        "BROKER_PASSWORD": PASSWORD,
        "BROKER_MANAGEMENT_URL": management,
    }


def _started(stack: ExitStack) -> Server:
    """Run a server, with which the emulator ends."""
    from .. import servers  # Imported late: the template's tests run this file alone.

    started = stack.enter_context(server())
    servers.watch("RabbitMQ", started.process)
    return started


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """Run a server with temporary storage.

    Raises:
        NoBrokerError: neither rabbitmq-server nor a container engine is installed.
        TimeoutError: the server did not start in time.
    """
    ports = {name: free_port() for name in ("amqp", "management", "distribution")}
    folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
    program = _program("rabbitmq-server")
    engine = next(filter(None, map(shutil.which, ("docker", "podman"))), None)
    if not program and not engine:
        raise NoBrokerError("install rabbitmq-server, Docker or Podman to run RabbitMQ; none of them was found")
    environment = {**os.environ, **_configure(folder, ports, installed=bool(program))}
    command = [program] if program else _container(str(engine), folder, ports)
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Not stopped by Ctrl-C in the terminal, like the emulator.
        )
    try:
        management = f"http://{HOST}:{ports['management']}"
        _wait_for(management, process, folder / "output")
        yield Server(f"amqp://{HOST}:{ports['amqp']}", management, environment, process)
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path, ports: dict[str, int], *, installed: bool) -> dict[str, str]:
    """Write the server's configuration to a folder, and return the environment variables that name it."""
    settings = SETTINGS.format(user=USERNAME, password=PASSWORD)
    if installed:
        settings += f"listeners.tcp.1 = {HOST}:{ports['amqp']}\n"
        settings += f"management.tcp.ip = {HOST}\nmanagement.tcp.port = {ports['management']}\n"
    (folder / "rabbitmq.conf").write_text(settings, encoding="utf-8")
    (folder / "advanced.config").write_text(FAST_CHECKS, encoding="utf-8")
    (folder / "plugins").write_text("[rabbitmq_management].\n", encoding="utf-8")
    return {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"service-{ports['amqp']}@localhost",
        "RABBITMQ_DIST_PORT": str(ports["distribution"]),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
    }


def _container(engine: str, folder: Path, ports: dict[str, int]) -> list[str]:
    """Return the command that runs the server in a container."""
    inside = {"rabbitmq.conf": "rabbitmq.conf", "advanced.config": "advanced.config", "plugins": "enabled_plugins"}
    mounts = [f"--volume={folder / ours}:/etc/rabbitmq/{theirs}:ro" for ours, theirs in inside.items()]
    published = [f"--publish={HOST}:{ports['amqp']}:5672", f"--publish={HOST}:{ports['management']}:15672"]
    return [engine, "run", "--rm", "--init", *published, *mounts, IMAGE]


def _wait_for(management: str, process: subprocess.Popen[bytes], output: Path) -> None:
    end = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            ask(management, "GET", "overview")
            return
        except (OSError, ValueError):
            if process.poll() is not None or time.monotonic() > end:
                output_end = output.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise TimeoutError(f"RabbitMQ did not start:\n{output_end}") from None
            time.sleep(0.2)


def ask(management: str, method: str, path: str, content: Any = None) -> Any:
    """Make a request to the management API.

    Raises:
        OSError: the API is unavailable or refused the request.
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
    """Return the path of a program of RabbitMQ, or None if it is not installed."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *PROGRAM_FOLDERS)))
    if found and (wrapper := Path(found).resolve()).name == DEBIAN_WRAPPER:
        return str(wrapper.with_name(name))
    return found


def _delete_virtual_host(management: str, virtual_host: str) -> None:
    with contextlib.suppress(OSError):
        ask(management, "DELETE", f"vhosts/{virtual_host}")


def free_port() -> int:
    """Return a free port of localhost."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
