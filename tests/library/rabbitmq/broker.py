"""What tests do at the broker, past the service."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import amqp

QUEUE_RIGHTS: tuple[str, ...] = ()
"""Prefix of the names of AWS permissions for a queue; none, because the broker has its own permissions."""


@dataclass(frozen=True)
class Seen:
    """A message in a dead-letter queue."""

    reason: dict[str, str]
    """Why it is there, as the service says."""
    group: str | None
    """Its message group, where the broker keeps one."""


def empty(service: Any, *, dead: bool) -> None:
    """Take what waits out of the first queue, or out of its dead-letter queue."""
    name = service.queue_name(service.queue, dead=dead)
    with service.app.connection_for_write() as connection:
        while connection.default_channel.purge(name) or (not dead and service.waiting()):
            time.sleep(0.1)  # Messages in flight may be redelivered.


def given_back(service: Any) -> bool:
    """Return whether the message waits in the first queue."""
    name = service.queue_name(service.queue, dead=False)
    with service.app.connection_for_write() as connection:
        channel = connection.default_channel
        end = time.monotonic() + 1
        while not (found := channel.queue_declare(name, passive=True).message_count) and time.monotonic() < end:
            time.sleep(0.1)
    return bool(found == 1)


def see_dead(service: Any) -> Seen:
    """Return the message in the dead-letter queue of the first queue, and leave it there."""
    with service.app.connection_for_write() as connection:
        message = connection.default_channel.basic_get(service.queue_name(service.queue, dead=True))
        headers = message.headers
        message.channel.basic_reject(message.delivery_tag, requeue=True)
    reason = {name: value for name, value in headers.items() if name.startswith("Failure")}
    return Seen(reason, headers.get("MessageGroupId"))


def page_variables(service: Any) -> dict[str, str]:
    """Return what the examples of docs/messages.md read, besides the environment variables of the service."""
    return {}


def put(service: Any, message: dict[str, Any]) -> None:
    """Send a message to the first queue as it is, and without properties; a body that is no text becomes JSON."""
    body = message["body"] if isinstance(message["body"], str) else json.dumps(message["body"])
    kind = {"content_type": message["content-type"]} if "content-type" in message else {}
    with service.app.connection_for_write() as connection:
        made = amqp.Message(body, application_headers=message["headers"], **kind)
        connection.default_channel.basic_publish(made, exchange="tasks", routing_key=service.queue.name)


def received(service: Any) -> list[dict[str, Any]]:
    """Take all messages out of the first queue, and return them with their bodies decoded, as the schema has them."""
    found: list[dict[str, Any]] = []
    with service.app.connection_for_write() as connection:
        end = time.monotonic() + 3  # A message may be delayed.
        while time.monotonic() < end:
            message = connection.default_channel.basic_get(service.queue.name, no_ack=True)
            if message is None:
                time.sleep(0.1)
                continue
            about = {"content-type": message.content_type, "content-encoding": message.content_encoding}
            found.append({"headers": message.headers, "body": json.loads(message.body), **about})
    return found


def redrive(service: Any) -> None:
    """Move the dead-letter messages of the first queue back to it."""
    name = service.queue_name(service.queue, dead=False)
    with service.app.connection_for_write() as connection:
        channel = connection.default_channel
        while message := channel.basic_get(f"{name}-dlq"):
            headers = {key: value for key, value in message.headers.items() if not key.startswith("x-")}
            kind = message.properties["content_type"], message.properties["content_encoding"]
            again = channel.prepare_message(message.body, None, *kind, headers)
            channel.basic_publish(again, exchange="tasks", routing_key=name)
            message.channel.basic_ack(message.delivery_tag)


def send_foreign(service: Any, task: str, args: list[Any], eta_in_seconds: float | None = None, **headers: Any) -> None:
    """Send a task to the first queue as a plain Celery client does."""
    task_id = str(uuid.uuid4())
    eta = datetime.now(timezone.utc) + timedelta(seconds=eta_in_seconds) if eta_in_seconds else None
    about = {"task": task, "id": task_id, "root_id": task_id, "eta": eta and eta.isoformat(), **headers}
    with service.app.connection_for_write() as connection:
        channel = connection.default_channel
        body = json.dumps([args, {}, {}])
        message = channel.prepare_message(body, None, "application/json", "utf-8", about, {"correlation_id": task_id})
        channel.basic_publish(message, exchange="tasks", routing_key=service.queue.name)


@contextlib.contextmanager
def faulty(service: Any) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield a proxy in front of the broker, and the environment variables that lead a worker through it."""
    from library.tcp_faults import proxy

    with proxy(service.environment["BROKER_URL"]) as between:
        yield between, {"BROKER_URL": between.url}
