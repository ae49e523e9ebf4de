"""Results as items of a DynamoDB table: quick, up to 400 KB each, deleted by the table's TTL."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import boto3
from celery.backends.dynamodb import DynamoDBBackend
from pydantic import Field
from pydantic_settings import BaseSettings

from ..aws import CLIENT_CONFIG, UNREADABLE, is_unavailable, require_json
from ..contract import Contract
from ..storing import ResilientBackend

MAX_ITEM_BYTES = 400 * 1024
"""https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html"""

ITEM_MARGIN_BYTES = 8 * 1024
"""What Celery stores beside a result: state, children, times."""

PART_BYTES = 8
"""Of a chord's part in the item that counts them: up to some 35,000 fit."""


class Variables(BaseSettings):
    """Where this environment keeps its results."""

    results_table: str = Field(pattern=r"^[A-Za-z0-9_.-]{3,255}$", description="DynamoDB table of the results")


def celery_settings(contract: Contract, variables: Variables) -> dict[str, Any]:
    """Return Celery's settings of the result backend.

    https://docs.celeryq.dev/en/stable/userguide/configuration.html#aws-dynamodb-backend-settings
    """
    return {
        # Table and lifetime are read from the URL alone; without a table Celery creates one of its
        # own, named `celery` and with provisioned capacity.
        "result_backend": (
            f"dynamodb://@{contract.region}/{variables.results_table}?ttl_seconds={contract.result_expires_seconds}"
        ),
    }


BACKENDS = {"dynamodb": f"{__name__}:Backend"}
"""What Celery is to take for the scheme of a URL."""


class Backend(ResilientBackend, DynamoDBBackend):  # type: ignore[misc]
    """Celery's DynamoDB backend, with timeouts, and chords that count each of their tasks once."""

    _client: Any
    max_result_bytes = MAX_ITEM_BYTES - ITEM_MARGIN_BYTES

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._part = threading.local()

    def is_unavailable(self, error: Exception) -> bool:
        """Return whether an error tells of DynamoDB, of the network or of credentials, and not of the result."""
        return is_unavailable(error) or isinstance(error, UNREADABLE)

    def _get_client(self, access_key_id: Any = None, secret_access_key: Any = None) -> Any:
        """Celery's own describes the table at first, creates one if it is missing, and waits a minute for answers."""
        if self._client is None:
            client = boto3.client("dynamodb", region_name=self.aws_region, config=CLIENT_CONFIG)
            client.meta.events.register("after-call.dynamodb", require_json)
            self._client = client
        return self._client

    def on_chord_part_return(self, request: Any, state: str, result: Any, **options: Any) -> Any:
        """Count a task of a chord; Celery's own counts one that is delivered twice, or stored twice, twice."""
        self._part.digest = hashlib.blake2b(str(request.id).encode(), digest_size=PART_BYTES).digest()
        return super().on_chord_part_return(request, state, result, **options)

    def incr(self, key: Any) -> int:
        """Add a task to the set of those that are done; return how many those are."""
        return int(self.with_retries(self._add_part, str(key)))

    def _add_part(self, key: str) -> int:
        name, part = {"S": key}, {"BS": [self._part.digest]}
        answer = self.client.update_item(
            TableName=self.table_name,
            Key={"id": name},
            UpdateExpression="ADD chord_parts :part",
            ExpressionAttributeValues={":part": part},
            ReturnValues="ALL_NEW",
        )
        return len(answer["Attributes"]["chord_parts"]["BS"])
