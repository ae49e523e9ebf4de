"""The emulated table for results."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

UNREACHABLE: dict[str, str] = {"RESULTS_TABLE": "unreachable"}
"""Environment variables that fit and lead nowhere, for tests that want no results."""


def in_containers(contract: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the services that compose.yaml needs for results, none, and the environment variables."""
    return {}, {"RESULTS_TABLE": f"{contract.service}-development-results"}


def create(contract: Any, stack: ExitStack) -> dict[str, str]:
    """Create the table; return the environment variables that lead to it."""
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
