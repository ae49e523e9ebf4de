"""Results in Redis or Valkey: quickest, and waiting for a result costs no polling."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import redis
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError
from kombu.utils.objects import cached_property
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings
from redis.client import Pipeline

from ..contract import Contract
from ..storing import ResilientBackend

TEMPORARY = ("OOM", "READONLY", "LOADING", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOREPLICAS", "MISCONF")
"""What error replies begin with that are about the server: out of memory, failing over, starting, and the like.

https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
"""


class Variables(BaseSettings):
    """Where this environment keeps its results."""

    results_url: SecretStr = Field(description="rediss:// URL of the results' Redis or Valkey")

    @field_validator("results_url")
    @classmethod
    def encrypted_unless_local(cls, url: SecretStr) -> SecretStr:
        """Refuse a connection that leaves the machine in plain text."""
        parts = urlsplit(url.get_secret_value())
        local = parts.hostname in ("localhost", "127.0.0.1", "::1", "redis")
        if parts.scheme != "rediss" and not (parts.scheme == "redis" and local):
            raise ValueError("must be rediss://…; plain redis:// is for this machine alone")
        return url


def celery_settings(contract: Contract, variables: Variables) -> dict[str, Any]:
    """Return Celery's settings of the result backend.

    https://docs.celeryq.dev/en/stable/userguide/configuration.html#redis-backend-settings
    """
    url = variables.results_url.get_secret_value()
    if url.startswith("rediss://") and "ssl_cert_reqs" not in url:
        # Celery insists that a TLS connection says how it checks the server's certificate.
        url += ("&" if "?" in url else "?") + "ssl_cert_reqs=required"
    return {
        "result_backend": url,
        "result_expires": contract.result_expires_seconds,
        # Whoever sends a task also subscribes to its result. With Celery's 20 tries a sender, a web
        # request say, would hang for 20 seconds when Redis is out of reach.
        "result_backend_transport_options": {
            "retry_policy": {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}
        },
        # Without these a connection that a firewall dropped in silence is waited on for ever.
        "redis_socket_connect_timeout": 5,
        "redis_socket_timeout": 10,
        "redis_socket_keepalive": True,
        "redis_retry_on_timeout": True,
        "redis_backend_health_check_interval": 30,
    }


BACKENDS = {"redis": f"{__name__}:Backend", "rediss": f"{__name__}:Backend"}
"""What Celery is to take for the scheme of a URL."""


class Backend(ResilientBackend, RedisBackend):  # type: ignore[misc]
    """Celery's Redis backend, each of whose commands is repeated while Redis is unavailable."""

    def is_unavailable(self, error: Exception) -> bool:
        """Return whether an error tells of Redis or of the network, and not of the result."""
        if isinstance(error, (BackendStoreError, redis.DataError)):
            return False
        if isinstance(error, redis.ResponseError):
            return str(error).startswith(TEMPORARY) or isinstance(error, redis.exceptions.OutOfMemoryError)
        return isinstance(error, (redis.RedisError, OSError))

    def _get_client(self) -> Any:
        backend = self

        class Client(redis.StrictRedis):
            """A client for a backend."""

            def execute_command(self, *args: Any, **options: Any) -> Any:
                """Execute a command."""
                return backend.with_retries(super().execute_command, *args, **options)

            def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
                """Return a pipeline."""
                return Commands(self.connection_pool, self.response_callbacks, transaction, shard_hint)

        class Commands(Pipeline):
            """Commands that are executed together."""

            def execute(self, *args: Any, **options: Any) -> Any:
                """Execute them; those that failed together are sent together again."""
                commands = list(self.command_stack)

                def again() -> Any:
                    self.command_stack = list(commands)
                    return super(Commands, self).execute(*args, **options)

                return backend.with_retries(again)

        return Client

    @cached_property
    def _chord_part_return_script(self) -> Any:
        """Celery's script claims a chord for its caller; repeated, it must not take its own claim for another's."""
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
