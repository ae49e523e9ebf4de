"""What every client of AWS in the service shares: how long it waits, and which of its errors are worth another try."""

from __future__ import annotations

from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError
from celery.exceptions import BackendStoreError
from kombu.exceptions import EncodeError

CLIENT_CONFIG = Config(connect_timeout=5, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
"""boto3 alone waits 60 seconds for an answer and tries five times, so that a task or a producer hangs for minutes."""


class AnswerError(OSError):
    """What came is not an answer of AWS, though its status says so: the page of a proxy, for example."""


def insist_on_json(http_response: Any, **rest: Any) -> None:
    """Refuse an answer that is no JSON, which botocore takes for one with nothing in it; a handler of its events.

    Raises:
        AnswerError: it is none.
    """
    if "json" not in http_response.headers.get("content-type", ""):
        raise AnswerError(f"HTTP {http_response.status_code} with an answer that is not JSON")


ABOUT_REQUEST = frozenset(
    {"ValidationException", "EntityTooLarge", "RequestEntityTooLarge", "ItemCollectionSizeLimitExceededException"}
)
"""Error codes that tell of what was to be stored, which is too large for example."""


def is_about_request(error: Exception) -> bool:
    """Return whether a request failed for what it held, so that it would fail again.

    Everything else may pass: no answer, throttling, expired or missing credentials, also permissions, which somebody
    will mend.
    """
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") in ABOUT_REQUEST
    return isinstance(error, (ParamValidationError, EncodeError, BackendStoreError))
