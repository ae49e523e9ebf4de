"""Results in Redis or Valkey: fastest, and waiting for a result needs no polling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import redis
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError
from celery.result import ResultSet
from kombu.utils.objects import cached_property
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings
from redis.client import Pipeline

from ..contract import Contract
from ..storing import ResilientBackend

TEMPORARY = ("OOM", "READONLY", "LOADING", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOREPLICAS", "MISCONF")
"""Prefixes of temporary errors of the server, such as out of memory, failover and start-up.

https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
"""


class Variables(BaseSettings):
    """The Redis or Valkey of this environment's results."""

    results_url: SecretStr = Field(description="rediss:// URL of the Redis or Valkey for results")

    @field_validator("results_url")
    @classmethod
    def encrypted_unless_local(cls, url: SecretStr) -> SecretStr:
        """Refuse an unencrypted connection to another machine."""
        parts = urlsplit(url.get_secret_value())
        local = parts.hostname in ("localhost", "127.0.0.1", "::1", "redis")
        if parts.scheme != "rediss" and not (parts.scheme == "redis" and local):
            raise ValueError("must be rediss://…; redis:// is allowed only for localhost")
        return url


def celery_settings(contract: Contract, variables: Variables) -> dict[str, Any]:
    """Return Celery's settings for the result backend.

    https://docs.celeryq.dev/en/stable/userguide/configuration.html#redis-backend-settings
    """
    url = variables.results_url.get_secret_value()
    if url.startswith("rediss://") and "ssl_cert_reqs" not in url:
        # Celery requires this parameter for TLS.
        url += ("&" if "?" in url else "?") + "ssl_cert_reqs=required"
    return {
        "result_backend": url,
        "result_expires": contract.result_expires_seconds,
        # With Celery's 20 attempts, a web request that waits for a result or sends a chord would hang
        # for 20 seconds if Redis is unavailable.
        "result_backend_transport_options": {
            "retry_policy": {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}
        },
        # Without timeouts, a connection that a firewall dropped would block for ever.
        "redis_socket_connect_timeout": 5,
        "redis_socket_timeout": 10,
        "redis_socket_keepalive": True,
        "redis_retry_on_timeout": True,
        "redis_backend_health_check_interval": 30,
    }


BACKENDS = {"redis": f"{__name__}:Backend", "rediss": f"{__name__}:Backend"}
"""The backend class, by URL scheme."""


def _members(results: Any) -> Iterator[Any]:
    """Yield the results of a group, and those of groups in it."""
    for result in results.results:
        if isinstance(result, ResultSet):
            yield from _members(result)
        else:
            yield result


class Backend(ResilientBackend, RedisBackend):  # type: ignore[misc]
    """Celery's Redis backend, which retries every command while Redis is unavailable."""

    @property
    def place(self) -> str:
        """The server, for error messages."""
        return "Redis (RESULTS_URL)"

    def is_unavailable(self, error: Exception) -> bool:
        """Return whether an error is due to Redis or the network, and not to the result."""
        if isinstance(error, (BackendStoreError, redis.DataError)):
            return False
        if isinstance(error, redis.ResponseError):
            return str(error).startswith(TEMPORARY) or isinstance(error, redis.exceptions.OutOfMemoryError)
        return isinstance(error, (redis.RedisError, OSError))

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing when a task is sent: whoever waits for its result subscribes to it then.

        Celery subscribes here, so that nobody can send while Redis is unavailable, and producers that never wait keep
        a subscription of every task. What is stored before the subscription is read when the wait begins.
        """

    def iter_native(self, result: Any, no_ack: bool = True, **options: Any) -> Any:  # type: ignore[override]
        """Wait for the results of a group, and yield them as they arrive."""
        for member in _members(result):
            self.add_pending_result(member)
        return super().iter_native(result, no_ack, **options)

    def _get_client(self) -> Any:
        backend = self

        class Client(redis.StrictRedis):
            """A client that retries commands."""

            def execute_command(self, *args: Any, **options: Any) -> Any:
                """Execute a command, with retries."""
                return backend.with_retries(super().execute_command, *args, **options)

            def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
                """Return a pipeline that retries."""
                return Commands(self.connection_pool, self.response_callbacks, transaction, shard_hint)

        class Commands(Pipeline):
            """A pipeline that retries all of its commands together."""

            def execute(self, *args: Any, **options: Any) -> Any:
                """Execute the commands, with retries."""
                commands = list(self.command_stack)

                def again() -> Any:
                    self.command_stack = list(commands)
                    return super(Commands, self).execute(*args, **options)

                return backend.with_retries(again)

        return Client

    @cached_property
    def _chord_part_return_script(self) -> Any:
        """Celery's script, which claims a chord for its caller; a retry recognizes its own claim."""
        script = super()._chord_part_return_script  # type: ignore[misc]

        def call(keys: Any, args: Any, client: Any) -> Any:
            *_, claim_key = keys
            *_, token = args
            ready, difference, size, claimed = script(keys=keys, args=args, client=client)
            if size and not claimed and ready == int(size) + int(difference or 0):
                owner = client.get(claim_key)
                claimed = int(owner in (token, token.encode()))
            return ready, difference, size, claimed

        return call
