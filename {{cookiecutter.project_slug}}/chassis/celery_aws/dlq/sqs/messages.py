"""Decoding of the messages in a dead-letter queue, which may not be Celery messages."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, replace
from typing import Any

from ..message import ArgumentsError, Call, Message, parsed, read_call, with_arguments


def decode(body: str) -> Call | None:
    """Return the call in a message, or None if it is not a Celery message.

    The service sends plain JSON. kombu's default encodes a message in base64, and its arguments twice.
    """
    envelope = _envelope(body)
    return read_call(envelope.get("headers"), _content(envelope)) if envelope else None


def _envelope(body: str) -> dict[str, Any] | None:
    envelope = parsed(body)
    if envelope is None:
        envelope = parsed(_base64(body))
    is_ours = isinstance(envelope, dict) and isinstance(envelope.get("properties", {}), dict)
    return envelope if is_ours else None


def _content(envelope: dict[str, Any]) -> Any:
    content = envelope.get("body")
    return _base64(content) if _is_encoded(envelope) and isinstance(content, str) else content


def _is_encoded(envelope: dict[str, Any]) -> bool:
    return bool(envelope.get("properties", {}).get("body_encoding") == "base64")


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


@dataclass(frozen=True)
class SqsMessage(Message):
    """A message as it was received."""

    receipt_handle: str
    body: str
    attributes: dict[str, dict[str, Any]]
    """Message attributes, in the format of SQS."""
    deduplication_id: str

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body

    @property
    def content_type(self) -> str:
        """The content type that its producer stated; empty if it stated none."""
        return str((_envelope(self.body) or {}).get("content-type") or "")

    def failure(self, name: str) -> str:
        """Return a part of the reason that the worker stored: Exception, Traceback, Host or Attempt."""
        return str(self.attributes.get(f"Failure{name}", {}).get("StringValue", ""))

    def edited(self, args: list[Any], kwargs: dict[str, Any]) -> SqsMessage:
        """Return the message with other arguments.

        Raises:
            ArgumentsError: it is not a Celery message, or its arguments cannot be decoded.
        """
        envelope = _envelope(self.body)
        if not envelope or not self.call:
            raise ArgumentsError("this is not a Celery message, so it has no arguments")
        headers, content = with_arguments(envelope["headers"], _content(envelope), args, kwargs)
        text = base64.b64encode(content).decode() if _is_encoded(envelope) else content.decode()
        body = json.dumps({**envelope, "headers": headers, "body": text})
        if parsed(self.body) is None:
            body = base64.b64encode(body.encode()).decode()
        return replace(self, body=body, call=decode(body))

    def exported(self) -> dict[str, Any]:
        """Return the message as JSON data for `dlq export`; `imported` parses it."""
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


def received(data: dict[str, Any]) -> SqsMessage:
    """Convert a message of a ReceiveMessage response."""
    system = data.get("Attributes", {})
    keys = ("DataType", "StringValue", "BinaryValue")
    attributes = {
        name: {key: value[key] for key in keys if value.get(key) is not None}
        for name, value in data.get("MessageAttributes", {}).items()
        # If SQS itself dead-lettered the message, a reason is from before it was redriven.
        if not (name.startswith("Failure") and "DeadLetterQueueSourceArn" in system)
    }
    attempt = attributes.get("FailureAttempt", {}).get("StringValue", "")
    return SqsMessage(
        message_id=data["MessageId"],
        receipt_handle=data["ReceiptHandle"],
        body=data["Body"],
        attributes=attributes,
        sent_at_seconds=int(system.get("SentTimestamp", 0)) / 1_000,
        # If a worker dead-lettered it, the receive count of SQS is the number of peeks.
        receive_count=int(attempt if attempt.isdecimal() else system.get("ApproximateReceiveCount", 0)),
        group=system.get("MessageGroupId", ""),
        deduplication_id=system.get("MessageDeduplicationId", ""),
        call=decode(data["Body"]),
    )


def _written(value: dict[str, Any]) -> dict[str, str]:
    if "BinaryValue" not in value:
        return value
    return {**value, "BinaryValue": base64.b64encode(value["BinaryValue"]).decode()}


def imported(line: str) -> SqsMessage:
    """Parse a line that `Message.exported` wrote.

    Raises:
        ValueError: the line is invalid.
    """
    try:
        data = json.loads(line)
        attributes = {
            name: {**value, "BinaryValue": base64.b64decode(value["BinaryValue"])} if "BinaryValue" in value else value
            for name, value in data["attributes"].items()
        }
        if not isinstance(data["body"], str):
            raise TypeError("the body must be text")
        return SqsMessage(
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
        raise ValueError(f"not a line of `dlq export` ({error!r})") from None
