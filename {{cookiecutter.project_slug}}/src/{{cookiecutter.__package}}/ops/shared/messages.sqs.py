"""Reading what lies in a queue: Celery's messages in every encoding, and what is none."""

from __future__ import annotations

import base64
import binascii
import json
import time
import zlib
from dataclasses import dataclass
from typing import Any

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


def decode(body: str) -> Call | None:
    """Return what a message asks for, or nothing if it is none of Celery's.

    The service writes its messages as JSON. kombu by default, and so an older version of the service, writes them in
    base64, the arguments inside twice.
    """
    envelope = _json(body)
    if envelope is None:
        envelope = _json(_base64(body))
    if not isinstance(envelope, dict) or not isinstance(envelope.get("properties"), dict):
        return None
    headers, content = envelope.get("headers"), envelope.get("body")
    if not isinstance(headers, dict) or not isinstance(headers.get("task"), str):
        return None
    args, kwargs = _arguments(content, envelope["properties"], headers)
    return Call(
        task=headers["task"],
        task_id=str(headers.get("id") or ""),
        args=args if args is not None else str(headers.get("argsrepr") or "cannot be read"),
        kwargs=kwargs if kwargs is not None else str(headers.get("kwargsrepr") or "cannot be read"),
        retries=headers["retries"] if isinstance(headers.get("retries"), int) else 0,
        eta=str(headers.get("eta") or ""),
    )


def _arguments(content: Any, properties: dict[str, Any], headers: dict[str, Any]) -> tuple[str | None, str | None]:
    if isinstance(content, str):
        raw: Any = _base64(content) if properties.get("body_encoding") == "base64" else content
        if headers.get("compression") in _COMPRESSED and isinstance(raw, bytes):
            try:
                raw = zlib.decompressobj().decompress(raw, LONGEST_UNPACKED_BYTES)
            except zlib.error:
                return None, None
        content = _json(raw)
    if not isinstance(content, list) or len(content) < 2:
        return None, None
    return json.dumps(content[0], ensure_ascii=False), json.dumps(content[1], ensure_ascii=False)


def _json(text: str | bytes | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


@dataclass(frozen=True)
class Message:
    """A message as it was received."""

    message_id: str
    receipt_handle: str
    body: str
    attributes: dict[str, dict[str, Any]]
    """Message attributes, as SQS gives them and takes them."""
    sent_at_seconds: float
    """When it was sent, as seconds since 1970."""
    receive_count: int
    group: str
    deduplication_id: str
    call: Call | None
    """What it asks for, if it is a message of Celery."""

    @property
    def id(self) -> str:
        """The task's id, or else that of SQS."""
        return (self.call and self.call.task_id) or self.message_id

    @property
    def task(self) -> str:
        """Name of its task; empty for a foreign message."""
        return self.call.task if self.call else ""

    @property
    def age_seconds(self) -> float:
        """How long ago it was sent."""
        return time.time() - self.sent_at_seconds

    def failure(self, name: str) -> str:
        """Return what the worker noted when it dead-lettered the message: Exception, Traceback, Host or Attempt."""
        return str(self.attributes.get(f"Failure{name}", {}).get("StringValue", ""))

    @property
    def reason(self) -> str:
        """Why it is here, in one line."""
        said = self.failure("Exception") or f"delivered {self.receive_count} times"
        return said if self.call else f"foreign message, {said}: {self.body[:60]}"

    def summary(self) -> dict[str, Any]:
        """Return what a list says of it."""
        return {
            "id": self.id,
            "message_id": self.message_id,
            "task": self.task or None,
            "age_seconds": round(self.age_seconds),
            "receive_count": self.receive_count,
            "group": self.group or None,
            "reason": self.reason,
        }

    def exported(self) -> dict[str, Any]:
        """Return all of it, for a line of JSON; `imported` reads it back."""
        return {
            "message_id": self.message_id,
            "task": self.task or None,
            "id": self.id,
            "sent_at_seconds": self.sent_at_seconds,
            "receive_count": self.receive_count,
            "group": self.group or None,
            "deduplication_id": self.deduplication_id or None,
            "attributes": {name: _written(value) for name, value in self.attributes.items()},
            "body": self.body,
        }


def received(data: dict[str, Any]) -> Message:
    """Give a message of SQS its type."""
    system = data.get("Attributes", {})
    keys = ("DataType", "StringValue", "BinaryValue")
    return Message(
        message_id=data["MessageId"],
        receipt_handle=data["ReceiptHandle"],
        body=data["Body"],
        attributes={
            name: {key: value[key] for key in keys if value.get(key) is not None}
            for name, value in data.get("MessageAttributes", {}).items()
        },
        sent_at_seconds=int(system.get("SentTimestamp", 0)) / 1_000,
        receive_count=int(system.get("ApproximateReceiveCount", 0)),
        group=system.get("MessageGroupId", ""),
        deduplication_id=system.get("MessageDeduplicationId", ""),
        call=decode(data["Body"]),
    )


def _written(value: dict[str, Any]) -> dict[str, str]:
    if "BinaryValue" not in value:
        return value
    return {**value, "BinaryValue": base64.b64encode(value["BinaryValue"]).decode()}


def imported(line: str) -> Message:
    """Read a line that `Message.exported` wrote.

    Raises:
        ValueError: it is no such line.
    """
    try:
        data = json.loads(line)
        attributes = {
            name: {**value, "BinaryValue": base64.b64decode(value["BinaryValue"])} if "BinaryValue" in value else value
            for name, value in data["attributes"].items()
        }
        if not isinstance(data["body"], str):
            raise TypeError("its body is no text")
        return Message(
            message_id=data["message_id"],
            receipt_handle="",
            body=data["body"],
            attributes=attributes,
            sent_at_seconds=float(data["sent_at_seconds"]),
            receive_count=int(data["receive_count"]),
            group=data["group"] or "",
            deduplication_id=data["deduplication_id"] or "",
            call=decode(data["body"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it is no line that `dlq export` wrote ({error!r})") from None
