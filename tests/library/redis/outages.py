"""Outages of the result backend, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import redis

from library.tcp_faults import proxy

KINDS = ("refused", "hang", "full")
"""Ways of being unavailable."""


class Outages:
    """Makes outages of the result backend of a service whose workers get `variables`."""

    def __init__(self, between: Any, upstream: str) -> None:
        self.between = between
        self.upstream = upstream
        self.variables = {"RESULTS_URL": between.url}

    @contextlib.contextmanager
    def outage(self, kind: str) -> Iterator[None]:
        """Be unavailable for a while."""
        if kind == "full":
            server = redis.Redis.from_url(self.upstream)
            server.config_set("maxmemory", 1)
            try:
                yield
            finally:
                server.config_set("maxmemory", 0)
            return
        self.between.fault = "hang" if kind == "hang" else "refused"
        if kind != "hang":
            self.between.cut()
        try:
            yield
        finally:
            self.between.fault = ""
            self.between.cut()


@contextlib.contextmanager
def results_behind(environment: dict[str, str]) -> Iterator[Outages]:
    """Put a proxy in front of the result backend."""
    with proxy(environment["RESULTS_URL"]) as between:
        yield Outages(between, environment["RESULTS_URL"])
