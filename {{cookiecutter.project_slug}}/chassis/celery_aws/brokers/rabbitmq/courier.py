"""Sends messages anew for a worker, in a thread: the broker confirms each in its own time, and polls must not wait.

It has a connection of its own, so that a process that is forked meanwhile finds no lock of a shared one taken.
"""

from __future__ import annotations

import logging
import os
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

RETRY_AFTER_SECONDS = 1

KEPT = ("correlation_id", "reply_to", "priority", "message_id", "timestamp", "type")
"""Properties that a message keeps."""

UNAVAILABLE = (AMQPError, OSError, OperationalError, LookupError)
"""What sending ends with where the broker, the network or a queue is not there."""

Done = Callable[[bool], None]


@dataclass(frozen=True)
class Parcel:
    """A message that was received, and where it is to be sent."""

    message: Any
    headers: Mapping[str, Any]
    exchange: str
    routing_key: str
    retry_until: float = 0
    """Monotonic time until which sending is tried again, unless the worker stops; it is tried twice anyway."""


class Courier:
    """Sends parcels, one after the other; those that wait for another try let others pass."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Parcel, Done]] = queue.Queue()
        self._answers: queue.Queue[tuple[Done, bool]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._open = 0
        self._finish_by: float | None = None
        """When nothing is waited for any longer, once the worker stops or has lost its connection."""

    def send(self, parcel: Parcel, done: Done, *, wait: bool) -> None:
        """Send a parcel.

        Args:
            parcel: what to send.
            done: is told, on the event loop, whether the broker has it.
            wait: whether to return only then: there is no event loop any longer.
        """
        self._open += 1
        self._waiting.put((parcel, done))
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
            self._thread.start()
        if wait:
            self.finish()

    def finish(self) -> None:
        """Wait up to `FINISH_WITHIN_SECONDS` for all parcels and report what became of each; retry none."""
        if threading.current_thread() is self._thread:
            return  # One of its own channels is closed.
        if self._open and self._finish_by is None:  # One time for all of them, however often this is called.
            self._finish_by = time.monotonic() + FINISH_WITHIN_SECONDS
        while self._finish_by is not None and (left := self._finish_by - time.monotonic()) > 0:
            try:
                self._answer(*self._answers.get(timeout=left))
            except queue.Empty:
                return

    def _run(self) -> None:
        while True:
            parcel, done = self._waiting.get()
            try:
                sent = self._sent(parcel)
                if not sent and time.monotonic() < parcel.retry_until and self._finish_by is None:
                    again = threading.Timer(RETRY_AFTER_SECONDS, self._waiting.put, ((parcel, done),))
                    again.daemon = True
                    again.start()
                    continue
                self._answers.put((done, sent))
                current_app.consumer.hub.call_soon(self._tell)
            except Exception:  # The thread must go on, whatever the state of a worker that stops.
                logger.exception("courier failed to process a message")

    def _tell(self) -> None:
        while True:
            try:
                self._answer(*self._answers.get_nowait())
            except queue.Empty:
                return

    def _answer(self, done: Done, sent: bool) -> None:
        self._open -= 1
        if not self._open:
            self._finish_by = None
        done(sent)

    def _sent(self, parcel: Parcel) -> bool:
        """Send a parcel, by a new connection if the one there was is gone; return whether the broker has it."""
        for last in (False, True):
            try:
                self._publish(parcel)
            except Exception as error:  # noqa: BLE001 - the thread must go on
                self._disconnect()
                if last or not isinstance(error, UNAVAILABLE):
                    where = f"{parcel.routing_key} of {parcel.exchange}"
                    logger.warning("message not sent to %s: %r", where, error)
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

os.register_at_fork(after_in_child=courier.__init__)  # type: ignore[misc]
