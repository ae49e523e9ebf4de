"""Results as items of a DynamoDB table: quick, up to 400 KB each, deleted by the table's TTL."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings

from .contract import Contract


class ResultsEnvironment(BaseSettings):
    """Where this environment keeps its results."""

    results_table: str = Field(pattern=r"^[A-Za-z0-9_.-]{3,255}$", description="DynamoDB table of the results")


def celery_results(contract: Contract, settings: ResultsEnvironment) -> dict[str, Any]:
    """Return Celery's settings of the result backend.

    https://docs.celeryq.dev/en/stable/userguide/configuration.html#aws-dynamodb-backend-settings
    """
    return {
        # Table and lifetime are read from the URL alone; without a table Celery creates one of its
        # own, named `celery` and with provisioned capacity.
        "result_backend": (
            f"dynamodb://@{contract.region}/{settings.results_table}?ttl_seconds={contract.result_expires_seconds}"
        ),
    }
