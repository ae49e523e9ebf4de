"""Checks of the DynamoDB table for results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from ..contract import Contract
from ..results.dynamodb import Variables
from .findings import Finding, failed, unknown, well, wrong


def findings(contract: Contract, client: Callable[[str], Any]) -> Iterator[Finding]:
    """Check the table (D401) and its TTL (D402)."""
    try:
        table = Variables().results_table  # type: ignore[call-arg]  # From the environment variables.
    except ValidationError:
        yield unknown("D401", "results", "RESULTS_TABLE is missing or invalid", "set it to the value of the service")
        return
    dynamodb = client("dynamodb")
    try:
        described = dynamodb.describe_table(TableName=table)["Table"]
        expiry = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    except Exception as error:  # noqa: BLE001 - `failed` raises what it cannot explain
        yield failed("D401", "results", error, "apply Terraform, or correct RESULTS_TABLE or the permissions")
        return
    keys = [(key["AttributeName"], key["KeyType"]) for key in described["KeySchema"]]
    if keys == [("id", "HASH")]:
        yield well("D401", "results", f"table {table}")
    else:
        yield wrong(
            "D401", "results", f"the key of {table} is {keys}", "Celery requires a table with the hash key `id`"
        )
    if expiry.get("TimeToLiveStatus") in ("ENABLED", "ENABLING") and expiry.get("AttributeName") == "ttl":
        yield well("D402", "results", f"TTL {contract.result_expires_seconds} s")
    else:
        yield wrong("D402", "results", f"TTL of {table} is off, or not on the attribute `ttl`", "apply Terraform")
