"""A Redis for results: the real server where there is one, and a stand-in in Python where not."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

HOST = "127.0.0.1"

UNREACHABLE: dict[str, str] = {"RESULTS_URL": "redis://127.0.0.1:9/0"}
"""Environment variables that fit and lead nowhere, for tests that want no results."""


def in_containers(contract: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the services that compose.yaml needs for results, and the environment variables."""
    server = {
        "image": "docker.io/valkey/valkey:8-alpine",
        "command": ["valkey-server", "--save", "", "--appendonly", "no"],
        "healthcheck": {"test": ["CMD", "valkey-cli", "ping"], "interval": "5s"},
        "restart": "unless-stopped",
    }
    return {"redis": server}, {"RESULTS_URL": "redis://redis:6379/0"}


def create(contract: Any, stack: ExitStack) -> dict[str, str]:
    """Start a server; return the environment variables that lead to it."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    if shutil.which("redis-server"):
        start_server(port, stack)
    else:
        start_stand_in(port, stack)
    wait_for(port)
    return {"RESULTS_URL": f"redis://{HOST}:{port}/0"}


def start_server(port: int, stack: ExitStack) -> None:
    """Run redis-server, keeping everything in memory."""
    process = subprocess.Popen(
        ["redis-server", "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)


def start_stand_in(port: int, stack: ExitStack) -> None:
    """Run fakeredis, which speaks enough of the protocol for results."""
    from fakeredis import TcpFakeServer

    server = TcpFakeServer((HOST, port))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)


def wait_for(port: int, seconds: float = 10) -> None:
    """Wait until something answers on the port.

    Raises:
        TimeoutError: nothing does.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"no Redis on port {port} after {seconds} s")
