"""The emulated table for results."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

UNREACHABLE: dict[str, str] = {"RESULTS_TABLE": "unreachable"}
"""Valid environment variables of an unreachable table, for tests that need none."""


def in_containers(contract: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return no services, and the environment variables for compose.yaml."""
    return {}, {"RESULTS_TABLE": f"{contract.service}-development-results"}


def create(contract: Any, stack: ExitStack) -> dict[str, str]:
    """Create the table; return its environment variables."""
    import boto3

    _, environment = in_containers(contract)
    table = environment["RESULTS_TABLE"]
    dynamodb = boto3.client("dynamodb")
    dynamodb.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"})
    return environment
