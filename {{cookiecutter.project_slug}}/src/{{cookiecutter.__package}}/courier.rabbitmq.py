"""Sends messages anew for a worker, in a thread: the broker confirms each in its own time, and polls must not wait.

It has a connection of its own, so that a process that is forked meanwhile finds no lock of a shared one taken.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amqp.exceptions import AMQPError
from celery import current_app as _current_app
from kombu import Producer
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)

current_app: Any = _current_app

FINISH_WITHIN_SECONDS = 6
"""What a worker that stops waits for messages that are on their way: less than its margin for stopping."""

KEPT = ("correlation_id", "reply_to", "priority", "message_id", "timestamp", "type")
"""Properties that a message keeps."""

Done = Callable[[bool], None]


@dataclass(frozen=True)
class Parcel:
    """A message that was received, and where it is to be sent."""

    message: Any
    headers: Mapping[str, Any]
    exchange: str
    routing_key: str


class Courier:
    """Sends parcels, one after the other."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Parcel, Done]] = queue.Queue()
        self._answers: queue.Queue[tuple[Done, bool]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._open = 0

    def send(self, parcel: Parcel, done: Done, *, wait: bool) -> None:
        """Send a parcel.

        Args:
            parcel: what to send.
            done: is told, on the event loop, whether the broker has it.
            wait: whether to return only then: there is no event loop any longer.
        """
        self._open += 1
        self._waiting.put((parcel, done))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
            self._thread.start()
        if wait:
            self.finish()

    def finish(self, within_seconds: float = FINISH_WITHIN_SECONDS) -> None:
        """Wait until all parcels are sent, and say so to whom it concerns."""
        if threading.current_thread() is self._thread:
            return  # One of its own channels is closed.
        end = time.monotonic() + within_seconds
        while self._open and (left := end - time.monotonic()) > 0:
            try:
                done, sent = self._answers.get(timeout=left)
            except queue.Empty:
                return
            self._open -= 1
            done(sent)

    def _run(self) -> None:
        while True:
            parcel, done = self._waiting.get()
            self._answers.put((done, self._sent(parcel)))
            current_app.consumer.hub.call_soon(self._tell)

    def _tell(self) -> None:
        while True:
            try:
                done, sent = self._answers.get_nowait()
            except queue.Empty:
                return
            self._open -= 1
            done(sent)

    def _sent(self, parcel: Parcel) -> bool:
        """Send a parcel, by a new connection if the one there was is gone; return whether the broker has it."""
        for last in (False, True):
            try:
                self._publish(parcel)
            except Exception as error:  # noqa: BLE001 - the thread must go on
                self._disconnect()
                known = isinstance(error, (AMQPError, OSError, OperationalError, LookupError))
                if last or not known:
                    where = f"{parcel.routing_key} of {parcel.exchange}"
                    logger.warning("a message could not be sent to %s, and is delivered again: %r", where, error)
                    return False
            else:
                return True
        return False

    def _publish(self, parcel: Parcel) -> None:
        if self._connection is None:
            self._connection = current_app.connection_for_write()
        message = parcel.message
        properties = {name: message.properties[name] for name in KEPT if name in message.properties}
        Producer(self._connection.default_channel, auto_declare=False).publish(
            message.body,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=dict(parcel.headers),
            exchange=parcel.exchange,
            routing_key=parcel.routing_key,
            delivery_mode=2,
            **properties,
        )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.collect(socket_timeout=1)
            except Exception as error:  # noqa: BLE001
                logger.debug("connection could not be closed: %r", error)


courier = Courier()
"""That of this process, if it is a worker's main one."""
