"""Reading what lies in a queue: Celery's messages, and what is none."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from ...brokers.rabbitmq.transport import EARLIER_DELIVERIES, OF_ONE_WAY
from ...contract import Queue
from ..message import Message, read_call

COUNTS = ("x-delivery-count", "x-acquired-count")
"""Headers that the queue itself adds to what it hands out."""

OF_A_FAILURE = ("x-first-death-", "x-last-death-", "Failure")
"""What further headers that tell of a failure begin with."""

CAUSES = {
    "delivery_limit": "its worker died each time, {} deliveries",
    "rejected": "delivered {} times",
    "expired": "waited for longer than its queue keeps messages",
}
"""What the broker's reasons for a dead letter mean."""


@dataclass(frozen=True)
class RabbitmqMessage(Message):
    """A message as it was received."""

    delivery_tag: int
    body: bytes
    headers: dict[str, Any]
    properties: dict[str, Any]
    """Those of AMQP, but for the headers."""

    @property
    def text(self) -> str:
        """Its body, for people."""
        return self.body.decode(errors="replace")

    def failure(self, name: str) -> str:
        """Return what the worker noted when it dead-lettered the message: Exception, Traceback, Host or Attempt."""
        return str(self.headers.get(f"Failure{name}", ""))

    @property
    def cause(self) -> str:
        """Why it is here, where no worker said so."""
        return CAUSES.get(_death(self.headers), "delivered {} times").format(self.receive_count)

    def exported(self) -> dict[str, Any]:
        """Return all of it, for a line of JSON; `imported` reads it back."""
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

    def afresh(self) -> dict[str, Any]:
        """Return its headers without those that tell how often, and why, it failed: it is to be tried as if new."""
        return {
            name: value
            for name, value in self.headers.items()
            if name not in OF_ONE_WAY and not name.startswith(OF_A_FAILURE)
        }


def received(delivery_tag: int, message: Any, queue: Queue) -> RabbitmqMessage:
    """Give a message of py-amqp its type.

    Args:
        delivery_tag: by which it is acknowledged.
        message: whose body is bytes.
        queue: whose dead letter it is.
    """
    properties = dict(message.properties)
    headers = {name: value for name, value in properties.pop("application_headers", {}).items() if name not in COUNTS}
    body = message.body or b""  # py-amqp has text for none.
    return _made(body, headers, properties, _deliveries(headers, queue), delivery_tag)


def imported(line: str) -> RabbitmqMessage:
    """Read a line that `Message.exported` wrote.

    Raises:
        ValueError: it is no such line.
    """
    try:
        data = json.loads(line)
        headers, properties = _read(data["headers"]), _read(data["properties"])
        if not isinstance(headers, dict) or not isinstance(properties, dict):
            raise TypeError("its headers or properties are none")
        body = data["body"].encode() if "body" in data else base64.b64decode(data["body_base64"], validate=True)
        return _made(body, headers, properties, int(data["receive_count"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it is no line that `dlq export` wrote ({error!r})") from None


def _made(
    body: bytes, headers: dict[str, Any], properties: dict[str, Any], receive_count: int, delivery_tag: int = 0
) -> RabbitmqMessage:
    return RabbitmqMessage(
        # RabbitMQ gives none.
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
    """Return what the broker noted when it dead-lettered a message; it puts the last first."""
    deaths = headers.get("x-death")
    return deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}


def _death(headers: dict[str, Any]) -> str:
    return str(_last_death(headers).get("reason", ""))


def _died_at(headers: dict[str, Any]) -> float:
    at = _last_death(headers).get("time")
    return at.replace(tzinfo=timezone.utc).timestamp() if isinstance(at, datetime) else 0


def _deliveries(headers: dict[str, Any], queue: Queue) -> int:
    """Return how often a message was delivered before it became a dead letter.

    A queue keeps its own count to itself when it dead-letters a message, but that it does so tells the count. The one
    in a dead-letter queue says how often somebody looked.
    """
    earlier = headers.get(EARLIER_DELIVERIES)
    count = earlier if isinstance(earlier, int) else 0
    if _death(headers) == "delivery_limit":
        return count + queue.max_receive_count
    return max(count + 1, queue.max_receive_count) if _death(headers) == "rejected" else count


def _written(value: Any) -> Any:
    """Return a value of AMQP as JSON can hold it: what JSON has no type for is an object with one key."""
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
    """Return the value that `_written` made JSON of."""
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
