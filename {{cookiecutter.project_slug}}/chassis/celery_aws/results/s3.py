"""Results as objects in S3: any size, and a lifecycle rule of the bucket deletes them."""

from __future__ import annotations

from typing import Any

import boto3
from celery.backends.s3 import S3Backend
from kombu.utils.encoding import bytes_to_str
from pydantic import Field
from pydantic_settings import BaseSettings

from ..aws import CLIENT_CONFIG, UNREADABLE, AnswerError, is_unavailable
from ..contract import Contract
from ..storing import ResilientBackend


class Variables(BaseSettings):
    """Where this environment keeps its results."""

    results_bucket: str = Field(min_length=3, max_length=63, description="S3 bucket of the results")


def celery_settings(contract: Contract, variables: Variables) -> dict[str, Any]:
    """Return Celery's settings of the result backend.

    https://docs.celeryq.dev/en/stable/userguide/configuration.html#s3-backend-settings
    """
    return {
        # The bucket does not belong into the URL: Celery reads it from `s3_bucket` alone.
        "result_backend": "s3://",
        "s3_bucket": variables.results_bucket,
        # A plain prefix of the key, hence the slash; IAM and the lifecycle rule name it too.
        "s3_base_path": "results/",
        "s3_region": contract.region,
        # S3 deletes expired results by itself, so Celery's clean-up task has nothing to do.
        "result_expires": None,
    }


BACKENDS = {"s3": f"{__name__}:Backend"}
"""What Celery is to take for the scheme of a URL."""


class Backend(ResilientBackend, S3Backend):  # type: ignore[misc]
    """Celery's S3 backend, with timeouts."""

    aws_region: str
    _get_s3_object: Any

    def is_unavailable(self, error: Exception) -> bool:
        """Return whether an error tells of S3, of the network or of credentials, and not of the result."""
        return is_unavailable(error) or isinstance(error, UNREADABLE)

    def set(self, key: Any, value: Any) -> Any:
        """Store a value, and see that it was S3 who said so."""
        return self.with_retries(self._put, key, value)

    def _put(self, key: Any, value: Any) -> None:
        answer = self._get_s3_object(bytes_to_str(key)).put(Body=value)
        if "ETag" not in answer:
            raise AnswerError("S3 did not confirm that it has the object")

    def _connect_to_s3(self) -> Any:
        """Celery's own refuses to start where credentials are late, and waits a minute for each answer."""
        return boto3.Session(region_name=self.aws_region).resource("s3", config=CLIENT_CONFIG)
