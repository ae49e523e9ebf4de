"""Results as objects in S3: any size, and a lifecycle rule of the bucket deletes them."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings

from .contract import Contract


class ResultsEnvironment(BaseSettings):
    """Where this environment keeps its results."""

    results_bucket: str = Field(min_length=3, max_length=63, description="S3 bucket of the results")


def celery_results(contract: Contract, settings: ResultsEnvironment) -> dict[str, Any]:
    """Return Celery's settings of the result backend.

    https://docs.celeryq.dev/en/stable/userguide/configuration.html#s3-backend-settings
    """
    return {
        # The bucket does not belong into the URL: Celery reads it from `s3_bucket` alone.
        "result_backend": "s3://",
        "s3_bucket": settings.results_bucket,
        # A plain prefix of the key, hence the slash; IAM and the lifecycle rule name it too.
        "s3_base_path": "results/",
        "s3_region": contract.region,
        # S3 deletes expired results by itself, so Celery's clean-up task has nothing to do.
        "result_expires": None,
    }
