"""Reading what lies in a queue: Celery's messages in every encoding, and what is none."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from ..message import Call, Message, parsed, read_call


def decode(body: str) -> Call | None:
    """Return what a message asks for, or nothing if it is none of Celery's.

    The service writes its messages as JSON. kombu by default, and so an older version of the service, writes them in
    base64, the arguments inside twice.
    """
    envelope = parsed(body)
    if envelope is None:
        envelope = parsed(_base64(body))
    if not isinstance(envelope, dict) or not isinstance(envelope.get("properties"), dict):
        return None
    headers, content = envelope.get("headers"), envelope.get("body")
    if isinstance(content, str) and envelope["properties"].get("body_encoding") == "base64":
        content = _base64(content)
    return read_call(headers, content)


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
    """SqsMessage attributes, as SQS gives them and takes them."""
    deduplication_id: str

    @property
    def text(self) -> str:
        """Its body, for people."""
        return self.body

    def failure(self, name: str) -> str:
        """Return what the worker noted when it dead-lettered the message: Exception, Traceback, Host or Attempt."""
        return str(self.attributes.get(f"Failure{name}", {}).get("StringValue", ""))

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


def received(data: dict[str, Any]) -> SqsMessage:
    """Give a message of SQS its type."""
    system = data.get("Attributes", {})
    keys = ("DataType", "StringValue", "BinaryValue")
    attributes = {
        name: {key: value[key] for key in keys if value.get(key) is not None}
        for name, value in data.get("MessageAttributes", {}).items()
        # What SQS itself has moved, no worker lived to tell about: such words are of a time before it was redriven.
        if not (name.startswith("Failure") and "DeadLetterQueueSourceArn" in system)
    }
    attempt = attributes.get("FailureAttempt", {}).get("StringValue", "")
    return SqsMessage(
        message_id=data["MessageId"],
        receipt_handle=data["ReceiptHandle"],
        body=data["Body"],
        attributes=attributes,
        sent_at_seconds=int(system.get("SentTimestamp", 0)) / 1_000,
        # Sent here by a worker, its own count says only how often somebody looked.
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
        raise ValueError(f"it is no line that `dlq export` wrote ({error!r})") from None
