"""Timeouts and error handling that all AWS clients of a service share."""

from __future__ import annotations

import errno
import os
from typing import Any

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
)
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


def dynamodb_client(region: str | None) -> Any:
    """Return a boto3 client of DynamoDB with timeouts, which refuses responses that are not from AWS.

    Args:
        region: region of AWS; None for that of boto3's configuration.
    """
    import boto3  # Only now: commands start fast without it.

    client = boto3.client("dynamodb", region_name=region, config=CLIENT_CONFIG)
    client.meta.events.register("after-call.dynamodb", require_json)
    return client


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


UNACCEPTED = frozenset(
    {
        *("ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId"),
        *("InvalidClientTokenId", "UnrecognizedClientException"),
    }
)
"""Error codes of AWS for expired or unknown credentials."""


def explanation(error: Exception) -> str:
    """Return what an error of AWS or of this machine means and what to do; empty for other errors."""
    if isinstance(error, NoCredentialsError):
        return "no AWS credentials found; log in, or set AWS_PROFILE"
    if isinstance(error, EndpointConnectionError) and os.environ.get("AWS_ENDPOINT_URL"):
        return f"{error}. AWS_ENDPOINT_URL is set; if it is that of `make dev`, source .env.development again"
    if isinstance(error, BotoCoreError):
        return f"the request to AWS failed: {error}"
    if isinstance(error, OSError) and error.errno not in (None, errno.EPIPE):  # The reader of a pipe may exit early.
        return f"operating system error: {error}"
    if not isinstance(error, ClientError):
        return ""
    code = error_code(error)
    reply = f"{error.operation_name}: {error.response.get('Error', {}).get('Message') or code}"
    if is_denied(error):
        return f"these credentials lack a permission: {reply}; docs/operations.md lists what each command needs"
    if is_missing(error):
        return f"{reply} Check --environment, and that these credentials are for its account."
    if code in UNACCEPTED:
        return f"AWS does not accept these credentials ({reply}); log in again"
    return f"AWS refused {reply} ({code})"


def error_code(error: Any) -> str:
    """Return the error code of an AWS response; empty if there was no response."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def is_denied(error: Any) -> bool:
    """Return whether an error means that a permission is missing."""
    return error_code(error) in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403")


def is_missing(error: Any) -> bool:
    """Return whether an error means that the queue does not exist."""
    return any(name in error_code(error) for name in ("NonExistentQueue", "QueueDoesNotExist"))
