"""The server of the results: does it answer, does it forget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from ..contract import Contract
from ..results.redis import Variables, celery_settings
from .findings import Finding, unknown, well, wrong


def findings(contract: Contract, client: Callable[[str], Any]) -> Iterator[Finding]:
    """Ask the server (D401); results expire by themselves (D402), unless it throws away what is young."""
    import redis

    try:
        variables = Variables()  # type: ignore[call-arg]  # It comes from the environment.
    except ValidationError:
        yield unknown("D401", "results", "RESULTS_URL is not set, or does not fit", "set it as the service does")
        return
    server: Any = redis.Redis.from_url(
        celery_settings(contract, variables)["result_backend"], socket_connect_timeout=5, socket_timeout=5
    )
    try:
        server.ping()
        memory = server.info("memory")
    except redis.RedisError as error:
        # Its message has host and port, and no password.
        yield wrong("D401", "results", f"Redis does not answer: {error}", "look at the network and RESULTS_URL")
        return
    yield well("D401", "results", "Redis answers")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy in ("noeviction", "volatile-ttl", "volatile-lru", "volatile-lfu"):
        yield well("D402", "results", f"after {contract.result_expires_seconds} s; when memory is full: {policy}")
    else:
        yield wrong(
            "D402",
            "results",
            f"when memory is full: {policy}, which drops young results",
            "set maxmemory-policy to volatile-ttl",
        )
