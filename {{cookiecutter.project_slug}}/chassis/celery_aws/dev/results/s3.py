"""The emulated bucket for results."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

UNREACHABLE: dict[str, str] = {"RESULTS_BUCKET": "unreachable"}
"""Valid environment variables of an unreachable bucket, for tests that need none."""


def in_containers(contract: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return no services, and the environment variables for compose.yaml."""
    return {}, {"RESULTS_BUCKET": f"{contract.service}-development-results"}


def create(contract: Any, stack: ExitStack) -> dict[str, str]:
    """Create the bucket; return its environment variables."""
    import boto3

    _, environment = in_containers(contract)
    bucket = environment["RESULTS_BUCKET"]
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket=bucket)
    expire = {
        "ID": "expire-results",
        "Status": "Enabled",
        "Filter": {"Prefix": "results/"},
        "Expiration": {"Days": math.ceil(contract.result_expires_seconds / 86_400)},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [expire]})
    return environment
