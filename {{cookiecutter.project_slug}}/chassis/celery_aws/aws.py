"""What every client of AWS in the service shares: how long it waits, and which of its errors are worth another try."""

from __future__ import annotations

from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.parsers import ResponseParserError
from kombu.exceptions import DecodeError

CLIENT_CONFIG = Config(connect_timeout=5, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
"""boto3 alone waits 60 seconds for an answer and tries five times, so that a task or a producer hangs for minutes."""


class AnswerError(OSError):
    """An HTTP 200 response that AWS did not send, such as a proxy's login page."""


def require_json(http_response: Any, **rest: Any) -> None:
    """Refuse an answer that is not JSON, which botocore takes for one with nothing in it; a handler of its events.

    Raises:
        AnswerError: it is none.
    """
    if "json" not in http_response.headers.get("content-type", ""):
        raise AnswerError(f"HTTP {http_response.status_code} with an answer that is not JSON")


ABOUT_REQUEST = frozenset(
    {
        "EntityTooLarge",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "ItemCollectionSizeLimitExceededException",
        "RequestEntityTooLarge",
        "ValidationException",
    }
)
"""Error codes that tell of what a request held: it is too large, for example."""


def is_unavailable(error: Exception) -> bool:
    """Return whether a request to AWS may succeed later, as its error does not tell of what it held.

    Missing permissions count as temporary, as an operator can fix them.
    """
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") not in ABOUT_REQUEST
    if isinstance(error, ParamValidationError):
        return False
    # botocore raises RuntimeError itself where it is given expired credentials.
    return type(error) is RuntimeError or isinstance(error, (BotoCoreError, OSError, ResponseParserError))


UNREADABLE = (DecodeError, KeyError, UnicodeDecodeError)
"""What reading a result ends with if what came is no answer of AWS."""
