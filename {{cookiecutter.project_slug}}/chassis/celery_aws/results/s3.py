"""Results as objects in S3, of any size; a lifecycle rule of the bucket deletes them."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.exceptions import ClientError
from celery.backends.s3 import S3Backend
from kombu.utils.encoding import bytes_to_str
from pydantic import Field
from pydantic_settings import BaseSettings

from ..aws import CLIENT_CONFIG, UNREADABLE, AnswerError, error_code, is_unavailable
from ..contract import Contract
from ..storing import ResilientBackend


class Variables(BaseSettings):
    """The bucket of this environment's results."""

    results_bucket: str = Field(min_length=3, max_length=63, description="S3 bucket of the results")


def celery_settings(contract: Contract, variables: Variables) -> dict[str, Any]:
    """Return Celery's settings for the result backend.

    https://docs.celeryq.dev/en/stable/userguide/configuration.html#s3-backend-settings
    """
    return {
        # Celery reads the bucket only from `s3_bucket`.
        "result_backend": "s3://",
        "s3_bucket": variables.results_bucket,
        # A prefix of the keys, including the slash; IAM and the lifecycle rule use it, too.
        "s3_base_path": "results/",
        "s3_region": contract.region,
        # The lifecycle rule deletes expired results, so Celery's clean-up task is not needed.
        "result_expires": None,
    }


BACKENDS = {"s3": f"{__name__}:Backend"}
"""The backend class, by URL scheme."""


class Backend(ResilientBackend, S3Backend):  # type: ignore[misc]
    """Celery's S3 backend, with timeouts."""

    aws_region: str
    bucket_name: str
    _get_s3_object: Any

    @property
    def place(self) -> str:
        """The bucket, for error messages."""
        return f"bucket {self.bucket_name} (RESULTS_BUCKET)"

    def is_unavailable(self, error: Exception) -> bool:
        """Return whether an error is due to S3, the network or credentials, and not to the result."""
        return is_unavailable(error) or isinstance(error, UNREADABLE)

    def get(self, key: Any) -> Any:
        """Return the value of a key; None if there is none."""
        return self.with_retries(self._get, key)

    def _get(self, key: Any) -> str | None:
        """Read an object. Celery sends HEAD first, whose 404 may mean a missing object or a missing bucket."""
        try:
            stored: bytes = self._get_s3_object(bytes_to_str(key)).get()["Body"].read()
        except ClientError as error:
            if error_code(error) == "NoSuchKey":
                return None
            raise
        return stored.decode()

    def set(self, key: Any, value: Any) -> Any:
        """Store a value, and verify that the response is from S3."""
        return self.with_retries(self._put, key, value)

    def _put(self, key: Any, value: Any) -> None:
        answer = self._get_s3_object(bytes_to_str(key)).put(Body=value)
        if "ETag" not in answer:
            raise AnswerError("S3 did not confirm the object")

    def _connect_to_s3(self) -> Any:
        """Return a resource with timeouts; Celery's needs credentials at once, and waits a minute."""
        return boto3.Session(region_name=self.aws_region).resource("s3", config=CLIENT_CONFIG)
