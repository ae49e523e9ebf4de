"""Results as items of a DynamoDB table: fast, up to 400 KB each, deleted by the table's TTL."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from celery.backends.dynamodb import DynamoDBBackend
from pydantic import Field
from pydantic_settings import BaseSettings

from ..aws import UNREADABLE, dynamodb_client, is_unavailable
from ..contract import Contract
from ..storing import ResilientBackend

MAX_ITEM_BYTES = 400 * 1024
"""https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html"""

ITEM_MARGIN_BYTES = 8 * 1024
"""Space for what Celery stores with a result: state, children, times."""

PART_BYTES = 8
"""Size of the digest of a chord's task; an item has room for about 35,000 of them."""


class Variables(BaseSettings):
    """The table of this environment's results."""

    results_table: str = Field(pattern=r"^[A-Za-z0-9_.-]{3,255}$", description="DynamoDB table of the results")


def celery_settings(contract: Contract, variables: Variables) -> dict[str, Any]:
    """Return Celery's settings for the result backend.

    https://docs.celeryq.dev/en/stable/userguide/configuration.html#aws-dynamodb-backend-settings
    """
    return {
        # Celery reads the table and the TTL only from the URL. Without a table, it creates one
        # named `celery` with provisioned capacity.
        "result_backend": (
            f"dynamodb://@{contract.region}/{variables.results_table}?ttl_seconds={contract.result_expires_seconds}"
        ),
    }


BACKENDS = {"dynamodb": f"{__name__}:Backend"}
"""The backend class, by URL scheme."""


class Backend(ResilientBackend, DynamoDBBackend):  # type: ignore[misc]
    """Celery's DynamoDB backend with timeouts, and with chords that count each task once."""

    _client: Any
    max_result_bytes = MAX_ITEM_BYTES - ITEM_MARGIN_BYTES

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._part = threading.local()

    @property
    def place(self) -> str:
        """The table, for error messages."""
        return f"table {self.table_name} (RESULTS_TABLE)"

    def is_unavailable(self, error: Exception) -> bool:
        """Return whether an error is due to DynamoDB, the network or credentials, and not to the result."""
        return is_unavailable(error) or isinstance(error, UNREADABLE)

    def _get_client(self, access_key_id: Any = None, secret_access_key: Any = None) -> Any:
        """Return a client with timeouts; Celery's describes and creates the table, and waits a minute."""
        if self._client is None:
            self._client = dynamodb_client(self.aws_region)
        return self._client

    def on_chord_part_return(self, request: Any, state: str, result: Any, **options: Any) -> Any:
        """Count a task of a chord; Celery counts a task twice if it is delivered or stored twice."""
        self._part.digest = hashlib.blake2b(str(request.id).encode(), digest_size=PART_BYTES).digest()
        return super().on_chord_part_return(request, state, result, **options)

    def incr(self, key: Any) -> int:
        """Add the task to the set of finished tasks, and return the size of the set."""
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
