"""No result backend: reading a result, or sending a chord, is an error."""

from __future__ import annotations

from typing import Any

from pydantic_settings import BaseSettings

from ..contract import Contract
from ..storing import NoResults


class Variables(BaseSettings):
    """No environment variables."""


def celery_settings(contract: Contract, variables: Variables) -> dict[str, Any]:
    """Return Celery's settings for the result backend.

    https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-ignore-result
    """
    return {"result_backend": None, "task_ignore_result": True}


BACKENDS = {"disabled": f"{NoResults.__module__}:NoResults"}
"""The backend class that Celery uses without a URL."""
