"""The emulated bucket for results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import boto3

UNREACHABLE: dict[str, str] = {"RESULTS_BUCKET": "unreachable"}
"""Environment variables that fit and lead nowhere, for tests that want no results."""


def create_results(contract: Mapping[str, Any], stack: ExitStack) -> dict[str, str]:
    """Create the bucket; return the environment variables that lead to it."""
    bucket = f"{contract['service']}-development-results"
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket=bucket)
    expire = {
        "ID": "expire-results",
        "Status": "Enabled",
        "Filter": {"Prefix": "results/"},
        "Expiration": {"Days": math.ceil(contract["result_expires_seconds"] / 86_400)},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [expire]})
    return {"RESULTS_BUCKET": bucket}
