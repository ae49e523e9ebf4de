"""Checks of the S3 bucket for results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from ..aws import error_code, explanation
from ..contract import Contract
from ..results.s3 import Variables
from .findings import Finding, unknown, well, wrong


def findings(contract: Contract, client: Callable[[str], Any]) -> Iterator[Finding]:
    """Check the bucket (D401) and its lifecycle rules (D402)."""
    from botocore.exceptions import ClientError

    try:
        bucket = Variables().results_bucket  # type: ignore[call-arg]  # From the environment variables.
    except ValidationError:
        yield unknown("D401", "results", "RESULTS_BUCKET is missing or invalid", "set it to the value of the service")
        return
    s3 = client("s3")
    try:
        s3.head_bucket(Bucket=bucket)
        yield well("D401", "results", f"bucket {bucket}")
        rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    except Exception as error:
        if isinstance(error, ClientError) and error_code(error) == "NoSuchLifecycleConfiguration":
            rules = []
        elif reason := explanation(error):
            yield wrong("D401", "results", reason, "apply Terraform, or correct RESULTS_BUCKET or the permissions")
            return
        else:
            raise
    wanted = math.ceil(contract.result_expires_seconds / 86_400)
    days = [
        rule["Expiration"]["Days"]
        for rule in rules
        if rule["Status"] == "Enabled"
        and "Days" in rule.get("Expiration", {})
        and "results/".startswith(rule.get("Filter", {}).get("Prefix", rule.get("Prefix", "")))
    ]
    if days and min(days) == wanted:
        yield well("D402", "results", f"after {wanted} days")
    else:
        found = f"after {min(days)} days" if days else "never"
        yield wrong(
            "D402", "results", f"results expire {found}, result_expires_seconds is {wanted} days", "apply Terraform"
        )
