"""Checks of the Redis or Valkey for results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from ..contract import Contract
from ..results.redis import Variables, celery_settings
from .findings import Finding, unknown, well, wrong


def findings(contract: Contract, client: Callable[[str], Any]) -> Iterator[Finding]:
    """Check the server (D401), and that it evicts no results before they expire (D402)."""
    import redis

    try:
        variables = Variables()  # type: ignore[call-arg]  # From the environment variables.
    except ValidationError:
        yield unknown("D401", "results", "RESULTS_URL is missing or invalid", "set it to the value of the service")
        return
    server: Any = redis.Redis.from_url(
        celery_settings(contract, variables)["result_backend"], socket_connect_timeout=5, socket_timeout=5
    )
    try:
        server.ping()
        memory = server.info("memory")
    except redis.RedisError as error:
        # The message has the host and the port, but no password.
        yield wrong("D401", "results", f"Redis does not respond: {error}", "check the network and RESULTS_URL")
        return
    yield well("D401", "results", "Redis responds")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy in ("noeviction", "volatile-ttl", "volatile-lru", "volatile-lfu"):
        yield well("D402", "results", f"after {contract.result_expires_seconds} s; when memory is full: {policy}")
    else:
        yield wrong(
            "D402",
            "results",
            f"when memory is full: {policy}, which evicts recent results",
            "set maxmemory-policy to volatile-ttl",
        )
