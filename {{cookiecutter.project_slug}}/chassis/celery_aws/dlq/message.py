"""Dead-letter messages and their selection, independent of the broker."""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

LONGEST_UNPACKED_BYTES = 16 * 1_048_576
"""Maximum size of a decompressed body, as a protection against zip bombs."""

_COMPRESSED = ("application/x-gzip", "application/gzip", "application/zlib")


@dataclass(frozen=True)
class Call:
    """The task call in a Celery message."""

    task: str
    task_id: str
    args: str
    """Positional arguments, as JSON if they can be decoded."""
    kwargs: str
    """Keyword arguments, as JSON if they can be decoded."""
    retries: int
    eta: str


def read_call(headers: Any, content: Any) -> Call | None:
    """Return the call in a message, or None if it is not a Celery message.

    Args:
        headers: Celery's headers, not validated.
        content: the arguments, decoded or as JSON, which may be compressed.
    """
    if not isinstance(headers, dict) or not isinstance(headers.get("task"), str):
        return None
    args, kwargs = _arguments(headers, content)
    return Call(
        task=headers["task"],
        task_id=str(headers.get("id") or ""),
        args=args if args is not None else str(headers.get("argsrepr") or "cannot be decoded"),
        kwargs=kwargs if kwargs is not None else str(headers.get("kwargsrepr") or "cannot be decoded"),
        retries=headers["retries"] if isinstance(headers.get("retries"), int) else 0,
        eta=str(headers.get("eta") or ""),
    )


def _arguments(headers: dict[str, Any], content: Any) -> tuple[str | None, str | None]:
    if headers.get("compression") in _COMPRESSED and isinstance(content, bytes):
        try:
            content = zlib.decompressobj().decompress(content, LONGEST_UNPACKED_BYTES)
        except zlib.error:
            return None, None
    if isinstance(content, (str, bytes)):
        content = parsed(content)
    if not isinstance(content, list) or len(content) < 2:
        return None, None
    return json.dumps(content[0], ensure_ascii=False), json.dumps(content[1], ensure_ascii=False)


def parsed(text: str | bytes | None) -> Any:
    """Return the decoded JSON, or None if it is invalid."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True)
class Message:
    """A message in a dead-letter queue; each broker has a subclass."""

    message_id: str
    """Id of the message at the broker."""
    sent_at_seconds: float
    """When it was sent, in seconds since 1970; 0 if unknown."""
    receive_count: int
    group: str
    call: Call | None
    """The task call; None if it is not a Celery message."""

    @property
    def id(self) -> str:
        """Id of the task, or of the message if it is not a Celery message."""
        return (self.call and self.call.task_id) or self.message_id

    @property
    def task(self) -> str:
        """Name of the task; empty if it is not a Celery message."""
        return self.call.task if self.call else ""

    @property
    def age_seconds(self) -> float | None:
        """Seconds since it was sent; None if unknown."""
        return time.time() - self.sent_at_seconds if self.sent_at_seconds else None

    @property
    def text(self) -> str:
        """The body as text."""
        raise NotImplementedError

    def failure(self, name: str) -> str:
        """Return a part of the reason that the worker stored: Exception, Traceback, Host or Attempt."""
        raise NotImplementedError

    @property
    def reason(self) -> str:
        """Why it was dead-lettered, in one line."""
        why = self.failure("Exception") or self.cause
        return why if self.call else f"not a Celery message, {why}: {self.text[:60]}"

    @property
    def cause(self) -> str:
        """Why it was dead-lettered, if no worker stored a reason."""
        return f"received {self.receive_count} times"

    def summary(self) -> dict[str, Any]:
        """Return the fields of `dlq list`."""
        return {
            "id": self.id,
            "message_id": self.message_id,
            "task": self.task or None,
            "age_seconds": None if self.age_seconds is None else round(self.age_seconds),
            "receive_count": self.receive_count,
            "group": self.group or None,
            "reason": self.reason,
        }

    def exported(self) -> dict[str, Any]:
        """Return the message as JSON data for `dlq export`; `imported` parses it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Selection:
    """Criteria for messages; by default all messages."""

    ids: tuple[str, ...] = ()
    """Prefixes of ids of tasks or messages."""
    task: str = ""
    """Name of the task, full or short: `high.send_invoice`."""
    older_than_seconds: float = 0

    @property
    def everything(self) -> bool:
        """Whether it selects all messages."""
        return self == Selection()

    def has(self, message: Message) -> bool:
        """Return whether a message is selected."""
        if self.ids and not any(own.startswith(self.ids) for own in (message.id, message.message_id)):
            return False
        if self.task and not f".{message.task}".endswith(f".{self.task}"):
            return False
        return (message.age_seconds or 0) >= self.older_than_seconds


AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True)
class Sent(Generic[AnyMessage]):
    """The result of sending messages."""

    accepted: tuple[AnyMessage, ...]
    refused: tuple[tuple[AnyMessage, str], ...]
    """Messages that were not sent, with the reason."""
