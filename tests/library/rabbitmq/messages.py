"""Messages for the tests of the on-call commands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import amqp

from library.support import RunningService


@contextmanager
def channel(service: RunningService) -> Iterator[Any]:
    """Open a channel, which knows what becomes of what it sends; everything is declared."""
    with service.app.connection_for_write() as connection:
        opened: Any = connection.default_channel
        opened.auto_decode = False
        yield opened


def put(service: RunningService, bodies: Iterable[bytes | str], *, dead: bool = True, **more: Any) -> None:
    """Put messages into the dead-letter queue of the first queue, or into the queue itself.

    Each is of Celery, unless its body begins otherwise; `headers` and properties of them all may be given.
    """
    exchange = "dead-letters" if dead else "tasks"
    headers = more.pop("headers", {})
    with channel(service) as opened:
        made = []
        for body in bodies:
            raw = body.encode() if isinstance(body, str) else body
            task = headers_of(raw) if raw.startswith(b'[["argument') else {}
            made.append(
                (amqp.Message(raw, application_headers={**task, **headers}, **more), exchange, service.queue.name)
            )
            if len(made) == 500:
                assert not opened.publish_all(made)
                made = []
        assert not opened.publish_all(made)


def headers_of(body: bytes) -> dict[str, Any]:
    """Return the headers of a task whose id follows from its argument, as the service sends them."""
    number = int(json.loads(body)[0][0].split()[1])
    return {
        "lang": "py",
        "task": "library.probes.leave_trace",
        "id": f"{number:08d}-aaaa",
        "retries": 0,
        "MessageGroupId": f"group-{number}",
    }


def celery_body(number: int) -> str:
    """Return the body of a message as the service sends it."""
    return json.dumps([[f"argument {number}"], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])


def name(service: RunningService, *, dead: bool = True) -> str:
    """Return the name of the first queue, or of its dead-letter queue."""
    return f"{service.queue.name}-dlq" if dead else str(service.queue.name)


def take(service: RunningService, *, dead: bool) -> list[Any]:
    """Take all messages out of a queue."""
    found = []
    with channel(service) as opened:
        while message := opened.basic_get(name(service, dead=dead), no_ack=True):
            found.append(message)
    return found


def bodies(service: RunningService, *, dead: bool) -> list[str]:
    """Take all messages out of a queue, and return their bodies."""
    return [message.body.decode() for message in take(service, dead=dead)]


def visible(service: RunningService, *, dead: bool = True) -> int:
    """Return the number of waiting messages in a queue."""
    with channel(service) as opened:
        return int(opened.queue_declare(name(service, dead=dead), passive=True).message_count)
