"""The emulated bucket for results."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import boto3

UNREACHABLE: dict[str, str] = {"RESULTS_BUCKET": "unreachable"}
"""Environment variables that fit and lead nowhere, for tests that want no results."""


def create_results(contract: Mapping[str, Any], stack: ExitStack) -> dict[str, str]:
    """Create the bucket; return the environment variables that lead to it."""
    bucket = f"{contract['service']}-development-results"
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    return {"RESULTS_BUCKET": bucket}
