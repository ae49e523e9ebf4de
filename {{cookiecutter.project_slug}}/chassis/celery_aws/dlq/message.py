"""Dead letters, whatever the broker: whose task, how old, delivered how often, and why; and which of them are meant."""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

LONGEST_UNPACKED_BYTES = 16 * 1_048_576
"""Of a compressed body no more is unpacked, so that a hostile one does no harm."""

_COMPRESSED = ("application/x-gzip", "application/gzip", "application/zlib")


@dataclass(frozen=True)
class Call:
    """What a Celery message asks for."""

    task: str
    task_id: str
    args: str
    """Its positional arguments, as JSON where they can be read."""
    kwargs: str
    """And those by name."""
    retries: int
    eta: str


def read_call(headers: Any, content: Any) -> Call | None:
    """Return what a message asks for, or nothing if it is none of Celery's.

    Args:
        headers: of Celery, as they were found.
        content: JSON of the arguments, which may be compressed, or what that says.
    """
    if not isinstance(headers, dict) or not isinstance(headers.get("task"), str):
        return None
    args, kwargs = _arguments(headers, content)
    return Call(
        task=headers["task"],
        task_id=str(headers.get("id") or ""),
        args=args if args is not None else str(headers.get("argsrepr") or "cannot be read"),
        kwargs=kwargs if kwargs is not None else str(headers.get("kwargsrepr") or "cannot be read"),
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
    """Return what JSON says, or nothing if it is none."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True)
class Message:
    """A message in a dead-letter queue; each broker's own says the rest."""

    message_id: str
    """What the broker calls it."""
    sent_at_seconds: float
    """When it was sent, as seconds since 1970; 0 if nobody knows."""
    receive_count: int
    group: str
    call: Call | None
    """What it asks for, if it is a message of Celery."""

    @property
    def id(self) -> str:
        """The task's id, or else the message's."""
        return (self.call and self.call.task_id) or self.message_id

    @property
    def task(self) -> str:
        """Name of its task; empty for a foreign message."""
        return self.call.task if self.call else ""

    @property
    def age_seconds(self) -> float | None:
        """How long ago it was sent, if that is known."""
        return time.time() - self.sent_at_seconds if self.sent_at_seconds else None

    @property
    def text(self) -> str:
        """Its body, for people."""
        raise NotImplementedError

    def failure(self, name: str) -> str:
        """Return what the worker noted when it dead-lettered the message: Exception, Traceback, Host or Attempt."""
        raise NotImplementedError

    @property
    def reason(self) -> str:
        """Why it is here, in one line."""
        said = self.failure("Exception") or self.cause
        return said if self.call else f"foreign message, {said}: {self.text[:60]}"

    @property
    def cause(self) -> str:
        """Why it is here, where no worker said so."""
        return f"delivered {self.receive_count} times"

    def summary(self) -> dict[str, Any]:
        """Return what a list says of it."""
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
        """Return all of it, for a line of JSON; `imported` reads it back."""
        raise NotImplementedError


@dataclass(frozen=True)
class Selection:
    """Which messages a command is about; all of them, unless told otherwise."""

    ids: tuple[str, ...] = ()
    """Beginnings of the ids of tasks or messages."""
    task: str = ""
    """Name of the task, in full or its end: `high.send_invoice`."""
    older_than_seconds: float = 0

    @property
    def everything(self) -> bool:
        """Whether it leaves nothing out."""
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
    """What became of messages that were to be sent."""

    accepted: tuple[AnyMessage, ...]
    refused: tuple[tuple[AnyMessage, str], ...]
    """Those the broker did not take, with its reason."""
