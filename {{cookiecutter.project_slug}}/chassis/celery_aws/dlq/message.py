"""Dead-letter messages and their selection, independent of the broker."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

LONGEST_UNPACKED_BYTES = 16 * 1_048_576
"""Maximum size of a decompressed body, as a protection against zip bombs."""

LONGEST_REPR_CHARACTERS = 1_024
"""Maximum length of the arguments in a header, as of Celery's `argsrepr_maxsize`."""

_COMPRESSED = ("application/x-gzip", "application/gzip", "application/zlib")


class ArgumentsError(ValueError):
    """Arguments cannot be edited, or the new ones are invalid."""


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
    is_decoded: bool = True
    """Whether the arguments could be decoded, so that they can be edited."""


def read_call(headers: Any, content: Any) -> Call | None:
    """Return the call in a message, or None if it is not a Celery message.

    Args:
        headers: Celery's headers, not validated.
        content: the arguments, decoded or as JSON, which may be compressed.
    """
    if not isinstance(headers, dict) or not isinstance(headers.get("task"), str):
        return None
    decoded = _decoded(headers, content)
    args, kwargs = (json.dumps(part, ensure_ascii=False) for part in decoded[:2]) if decoded else (None, None)
    return Call(
        task=headers["task"],
        task_id=str(headers.get("id") or ""),
        args=args if args is not None else str(headers.get("argsrepr") or "cannot be decoded"),
        kwargs=kwargs if kwargs is not None else str(headers.get("kwargsrepr") or "cannot be decoded"),
        retries=headers["retries"] if isinstance(headers.get("retries"), int) else 0,
        eta=str(headers.get("eta") or ""),
        is_decoded=bool(decoded),
    )


def with_arguments(
    headers: dict[str, Any], content: Any, args: list[Any], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], bytes]:
    """Return the headers and the content of a message with other arguments.

    What follows the task stays, and so does the compression.

    Raises:
        ArgumentsError: the arguments of the message cannot be decoded.
    """
    decoded = _decoded(headers, content)
    if not decoded:
        raise ArgumentsError("the arguments of this message cannot be decoded, so they cannot be edited")
    made = json.dumps([args, kwargs, *decoded[2:]]).encode()
    texts = {"argsrepr": repr(args), "kwargsrepr": repr(kwargs)}
    shown = {name: text[:LONGEST_REPR_CHARACTERS] for name, text in texts.items() if name in headers}
    return {**headers, **shown}, zlib.compress(made) if _is_compressed(headers, content) else made


def read_arguments(args: str, kwargs: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that somebody has written as JSON.

    Raises:
        ArgumentsError: they are not a list and an object of JSON.
    """
    positional = _read(args, list, "the positional arguments must be a JSON list")
    return positional, _read(kwargs, dict, "the keyword arguments must be a JSON object")


def _read(text: str, kind: type, must: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, allow_nan=False)  # A float such as 1e999 is read as infinity.
    except RecursionError:
        raise ArgumentsError(f"{must}: they are nested too deeply") from None
    except ValueError as error:
        raise ArgumentsError(f"{must}: {error}") from None
    if not isinstance(value, kind):
        raise ArgumentsError(f"{must}, and not {text.strip()[:40]}")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _is_compressed(headers: dict[str, Any], content: Any) -> bool:
    return headers.get("compression") in _COMPRESSED and isinstance(content, bytes)


def _decoded(headers: dict[str, Any], content: Any) -> list[Any] | None:
    """Return the arguments and what follows the task; None if they cannot be decoded."""
    if _is_compressed(headers, content):
        try:
            content = zlib.decompressobj().decompress(content, LONGEST_UNPACKED_BYTES)
        except zlib.error:
            return None
    if isinstance(content, (str, bytes)):
        content = parsed(content)
    return content if isinstance(content, list) and len(content) >= 2 else None


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
    def key(self) -> str:
        """What tells it from others, in 32 letters and digits; receiving it again does not change that."""
        parts = [self.message_id, self.id, self.task, self.group, self.text, self.failure("Exception")]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    @property
    def age_seconds(self) -> float | None:
        """Seconds since it was sent; None if unknown."""
        return time.time() - self.sent_at_seconds if self.sent_at_seconds else None

    @property
    def text(self) -> str:
        """The body as text."""
        raise NotImplementedError

    @property
    def content_type(self) -> str:
        """The content type that its producer stated; empty if it stated none."""
        raise NotImplementedError

    def failure(self, name: str) -> str:
        """Return a part of the reason that the worker stored: Exception, Traceback, Host or Attempt."""
        raise NotImplementedError

    @property
    def reason(self) -> str:
        """Why it was dead-lettered, in one line."""
        why = self.failure("Exception") or self.cause
        if self.call:
            return why
        return (
            f"not a Celery message, {why}: {self.text[:60]}" if self.text else f"not a Celery message, {why}; no body"
        )

    @property
    def is_readable(self) -> bool:
        """Whether it is a Celery message whose arguments can be decoded."""
        return bool(self.call and self.call.is_decoded)

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

    def edited(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Return the message with other arguments, to be resent.

        Raises:
            ArgumentsError: it is not a Celery message, or its arguments cannot be decoded.
        """
        raise NotImplementedError

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
