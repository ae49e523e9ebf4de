"""Redis for results: the installed server, or a fake in Python."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

from .. import servers

HOST = "127.0.0.1"

UNREACHABLE: dict[str, str] = {"RESULTS_URL": "redis://127.0.0.1:9/0"}
"""Valid environment variables of an unreachable server, for tests that need none."""


def in_containers(contract: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return services and environment variables of the result backend for compose.yaml."""
    server = {
        "image": "docker.io/valkey/valkey:8-alpine",
        "command": ["valkey-server", "--save", "", "--appendonly", "no"],
        "healthcheck": {"test": ["CMD", "valkey-cli", "ping"], "interval": "5s"},
        "restart": "unless-stopped",
    }
    return {"redis": server}, {"RESULTS_URL": "redis://redis:6379/0"}


def create(contract: Any, stack: ExitStack) -> dict[str, str]:
    """Start a server; return its environment variables."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    if shutil.which("redis-server"):
        start_server(port, stack)
    else:
        start_fake(port, stack)
    wait_for(port)
    return {"RESULTS_URL": f"redis://{HOST}:{port}/0"}


def start_server(port: int, stack: ExitStack) -> None:
    """Run redis-server without persistence."""
    process = subprocess.Popen(
        ["redis-server", "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    servers.watch("redis-server", process)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def start_fake(port: int, stack: ExitStack) -> None:
    """Run fakeredis, which supports enough of Redis for results."""
    from fakeredis import TcpFakeServer

    server = TcpFakeServer((HOST, port))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)


def wait_for(port: int, seconds: float = 10) -> None:
    """Wait until a server listens on a port.

    Raises:
        TimeoutError: there is none after `seconds`.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"no Redis on port {port} after {seconds} s")
