"""The emulated bucket for results."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

UNREACHABLE: dict[str, str] = {"RESULTS_BUCKET": "unreachable"}
"""Environment variables that fit and lead nowhere, for tests that want no results."""


def in_containers(contract: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the services that compose.yaml needs for results, none, and the environment variables."""
    return {}, {"RESULTS_BUCKET": f"{contract.service}-development-results"}


def create(contract: Any, stack: ExitStack) -> dict[str, str]:
    """Create the bucket; return the environment variables that lead to it."""
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
