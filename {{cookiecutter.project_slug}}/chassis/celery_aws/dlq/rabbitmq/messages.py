"""Decoding of the messages in a dead-letter queue, which may not be Celery messages."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from ...brokers.rabbitmq.transport import EARLIER_DELIVERIES, TRANSIT_HEADERS
from ...contract import Queue
from ..message import ArgumentsError, Message, read_call, with_arguments

COUNTS = ("x-delivery-count", "x-acquired-count")
"""Headers that a queue adds when it delivers a message."""

FAILURE_HEADER_PREFIXES = ("x-first-death-", "x-last-death-", "Failure")
"""Prefixes of further headers about a failure."""

CAUSES = {
    "delivery_limit": "its worker died in each of {} attempts",
    "rejected": "received {} times",
    "expired": "waited longer than retention_seconds of its queue",
}
"""Explanations of the broker's reasons for dead-lettering."""


@dataclass(frozen=True)
class RabbitmqMessage(Message):
    """A message as it was received."""

    delivery_tag: int
    body: bytes
    headers: dict[str, Any]
    properties: dict[str, Any]
    """AMQP properties without the headers."""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")

    @property
    def content_type(self) -> str:
        """The content type that its producer stated; empty if it stated none."""
        return str(self.properties.get("content_type") or "")

    def failure(self, name: str) -> str:
        """Return a part of the reason that the worker stored: Exception, Traceback, Host or Attempt."""
        return str(self.headers.get(f"Failure{name}", ""))

    @property
    def cause(self) -> str:
        """Why it was dead-lettered, if no worker stored a reason."""
        return CAUSES.get(_death(self.headers), "received {} times").format(self.receive_count)

    def edited(self, args: list[Any], kwargs: dict[str, Any]) -> RabbitmqMessage:
        """Return the message with other arguments.

        Raises:
            ArgumentsError: it is not a Celery message, or its arguments cannot be decoded.
        """
        if not self.call:
            raise ArgumentsError("this is not a Celery message, so it has no arguments")
        headers, body = with_arguments(self.headers, self.body, args, kwargs)
        return replace(self, body=body, headers=headers, call=read_call(headers, body))

    def exported(self) -> dict[str, Any]:
        """Return the message as JSON data for `dlq export`; `imported` parses it."""
        try:
            body = {"body": self.body.decode()}
        except UnicodeDecodeError:
            body = {"body_base64": base64.b64encode(self.body).decode()}
        return {
            "message_id": self.message_id,
            "task": self.task or None,
            "id": self.id,
            "sent_at_seconds": self.sent_at_seconds,
            "receive_count": self.receive_count,
            "group": self.group or None,
            "headers": _written(self.headers),
            "properties": _written(self.properties),
            **body,
        }

    def headers_to_resend(self) -> dict[str, Any]:
        """Return the headers without receive counts and reasons of failures."""
        return {
            name: value
            for name, value in self.headers.items()
            if name not in TRANSIT_HEADERS and not name.startswith(FAILURE_HEADER_PREFIXES)
        }


def received(delivery_tag: int, message: Any, queue: Queue) -> RabbitmqMessage:
    """Convert a message of py-amqp.

    Args:
        delivery_tag: tag for its acknowledgement.
        message: the message, with its body as bytes.
        queue: the queue that it was dead-lettered from.
    """
    properties = dict(message.properties)
    headers = {name: value for name, value in properties.pop("application_headers", {}).items() if name not in COUNTS}
    body = message.body or b""  # py-amqp returns an empty str for an empty body.
    return _made(body, headers, properties, _deliveries(headers, queue), delivery_tag)


def imported(line: str) -> RabbitmqMessage:
    """Parse a line that `Message.exported` wrote.

    Raises:
        ValueError: the line is invalid.
    """
    try:
        data = json.loads(line)
        headers, properties = _read(data["headers"]), _read(data["properties"])
        if not isinstance(headers, dict) or not isinstance(properties, dict):
            raise TypeError("headers and properties must be objects")
        body = data["body"].encode() if "body" in data else base64.b64decode(data["body_base64"], validate=True)
        return _made(body, headers, properties, int(data["receive_count"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a line of `dlq export` ({error!r})") from None


def _made(
    body: bytes, headers: dict[str, Any], properties: dict[str, Any], receive_count: int, delivery_tag: int = 0
) -> RabbitmqMessage:
    return RabbitmqMessage(
        # RabbitMQ does not assign message ids.
        message_id=str(properties.get("message_id") or hashlib.sha256(body).hexdigest()[:32]),
        sent_at_seconds=float(properties.get("timestamp") or _died_at(headers)),
        receive_count=receive_count,
        group=str(headers.get("MessageGroupId") or ""),
        call=read_call(headers, body),
        delivery_tag=delivery_tag,
        body=body,
        headers=headers,
        properties=properties,
    )


def _last_death(headers: dict[str, Any]) -> dict[str, Any]:
    """Return the broker's record of the last dead-lettering, which is the first of `x-death`."""
    deaths = headers.get("x-death")
    return deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}


def _death(headers: dict[str, Any]) -> str:
    return str(_last_death(headers).get("reason", ""))


def _died_at(headers: dict[str, Any]) -> float:
    at = _last_death(headers).get("time")
    return at.replace(tzinfo=timezone.utc).timestamp() if isinstance(at, datetime) else 0


def _deliveries(headers: dict[str, Any], queue: Queue) -> int:
    """Return how often a message was delivered before it was dead-lettered.

    The broker does not pass on a queue's count, but it follows from the reason. The count of the
    dead-letter queue is the number of peeks.
    """
    earlier = headers.get(EARLIER_DELIVERIES)
    count = earlier if isinstance(earlier, int) else 0
    if _death(headers) == "delivery_limit":
        return count + queue.max_receive_count
    return max(count + 1, queue.max_receive_count) if _death(headers) == "rejected" else count


def _written(value: Any) -> Any:
    """Return an AMQP value as JSON data; types without a JSON equivalent become an object with one key."""
    if isinstance(value, dict):
        made = {name: _written(held) for name, held in value.items()}
        return {"$table": made} if len(made) == 1 and next(iter(made)).startswith("$") else made
    if isinstance(value, list):
        return [_written(held) for held in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$time": value.isoformat()}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    return value


def _read(value: Any) -> Any:
    """Return the AMQP value of JSON data that `_written` returned."""
    if isinstance(value, list):
        return [_read(held) for held in value]
    if not isinstance(value, dict):
        return value
    kind: str
    held: Any
    kind, held = next(iter(value.items())) if len(value) == 1 else ("", None)
    if kind == "$base64":
        return base64.b64decode(held, validate=True)
    if kind == "$time":
        return datetime.fromisoformat(held)
    if kind == "$decimal":
        return Decimal(held)
    return {name: _read(each) for name, each in (held if kind == "$table" else value).items()}
