"""Results in Redis or Valkey: quickest, and waiting for a result costs no polling."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from .contract import Contract


class ResultsEnvironment(BaseSettings):
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


def celery_results(contract: Contract, settings: ResultsEnvironment) -> dict[str, Any]:
    """Return Celery's settings of the result backend.

    https://docs.celeryq.dev/en/stable/userguide/configuration.html#redis-backend-settings
    """
    url = settings.results_url.get_secret_value()
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
