"""Timeouts and error handling that all AWS clients of a service share."""

from __future__ import annotations

from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.parsers import ResponseParserError
from kombu.exceptions import DecodeError

CLIENT_CONFIG = Config(connect_timeout=5, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
"""By default boto3 waits 60 seconds and tries five times, so a task or a producer would hang for minutes."""


class AnswerError(OSError):
    """An HTTP 200 response that AWS did not send, such as a proxy's login page."""


def require_json(http_response: Any, **rest: Any) -> None:
    """Refuse a response that is not JSON, which botocore treats as empty. Register it for botocore's `after-call`.

    Raises:
        AnswerError: the response is not JSON.
    """
    if "json" not in http_response.headers.get("content-type", ""):
        raise AnswerError(f"HTTP {http_response.status_code} with a response that is not JSON")


INVALID_REQUEST = frozenset(
    {
        "EntityTooLarge",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "ItemCollectionSizeLimitExceededException",
        "RequestEntityTooLarge",
        "ValidationException",
    }
)
"""Error codes of invalid requests, which fail again if they are retried."""


def is_unavailable(error: Exception) -> bool:
    """Return whether a failed request to AWS may succeed later.

    Missing permissions count as temporary: an operator can add them.
    """
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") not in INVALID_REQUEST
    if isinstance(error, ParamValidationError):
        return False
    # botocore raises a plain RuntimeError for expired credentials.
    return type(error) is RuntimeError or isinstance(error, (BotoCoreError, OSError, ResponseParserError))


UNREADABLE = (DecodeError, KeyError, UnicodeDecodeError)
"""Errors of decoding a result if a response is not from AWS."""
