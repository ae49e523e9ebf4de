"""Checks of the S3 bucket for results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from ..aws import error_code
from ..contract import Contract
from ..results.s3 import Variables
from .findings import Finding, failed, unknown, well, wrong


def findings(contract: Contract, client: Callable[[str], Any]) -> Iterator[Finding]:
    """Check the bucket (D401) and its lifecycle rules (D402)."""
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
    except Exception as error:  # noqa: BLE001 - `failed` raises what it cannot explain
        if error_code(error) != "NoSuchLifecycleConfiguration":
            yield failed("D401", "results", error, "apply Terraform, or correct RESULTS_BUCKET or the permissions")
            return
        rules = []
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
