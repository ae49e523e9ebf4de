"""Republishes messages for a worker, in a thread, because waiting for confirms would block the event loop.

The thread has its own connection: a lock of a shared one could be held while the worker forks a process.
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
"""How long a stopping worker waits for messages to be sent; less than `STOP_MARGIN_SECONDS`."""

RETRY_AFTER_SECONDS = 1

KEPT = ("correlation_id", "reply_to", "priority", "message_id", "timestamp", "type")
"""Properties that a republished message keeps."""

UNAVAILABLE = (AMQPError, OSError, OperationalError, LookupError)
"""Errors if the broker, the network or a queue is unavailable."""

Done = Callable[[bool], None]


@dataclass(frozen=True)
class OutgoingMessage:
    """A message that was received, and its new destination."""

    message: Any
    headers: Mapping[str, Any]
    exchange: str
    routing_key: str
    retry_until: float = 0
    """Monotonic time until which sending is retried, unless the worker stops; there are at least two attempts."""


class Republisher:
    """Sends messages one by one; a message that waits for a retry does not block the others."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[OutgoingMessage, Done]] = queue.Queue()
        self._answers: queue.Queue[tuple[Done, bool]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._open = 0
        self._finish_by: float | None = None
        """Monotonic time until which `finish` waits; None while the worker is running."""

    def send(self, outgoing: OutgoingMessage, done: Done, *, wait: bool) -> None:
        """Send a message.

        Args:
            outgoing: the message.
            done: is called on the event loop; the argument is whether the broker confirmed the message.
            wait: wait for that, because the event loop has ended.
        """
        self._open += 1
        self._waiting.put((outgoing, done))
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="republisher", daemon=True)
            self._thread.start()
        if wait:
            self.finish()

    def finish(self) -> None:
        """Wait up to `FINISH_WITHIN_SECONDS` for all messages, and report the result of each; retry none."""
        if threading.current_thread() is self._thread:
            return  # Called because a channel of the thread was closed.
        if self._open and self._finish_by is None:  # Repeated calls share one time limit.
            self._finish_by = time.monotonic() + FINISH_WITHIN_SECONDS
        while self._finish_by is not None and (left := self._finish_by - time.monotonic()) > 0:
            try:
                self._answer(*self._answers.get(timeout=left))
            except queue.Empty:
                return

    def _run(self) -> None:
        while True:
            outgoing, done = self._waiting.get()
            try:
                sent = self._send_once(outgoing)
                if not sent and time.monotonic() < outgoing.retry_until and self._finish_by is None:
                    retry = threading.Timer(RETRY_AFTER_SECONDS, self._waiting.put, ((outgoing, done),))
                    retry.daemon = True
                    retry.start()
                    continue
                self._answers.put((done, sent))
                current_app.consumer.hub.call_soon(self._report)
            except Exception:  # The thread must continue, whatever the state of a stopping worker.
                logger.exception("message could not be republished")

    def _report(self) -> None:
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

    def _send_once(self, outgoing: OutgoingMessage) -> bool:
        """Send a message, if necessary over a new connection; return whether the broker confirmed it."""
        for last in (False, True):
            try:
                self._publish(outgoing)
            except Exception as error:  # noqa: BLE001 - the thread must continue
                self._disconnect()
                if last or not isinstance(error, UNAVAILABLE):
                    where = f"{outgoing.routing_key} of {outgoing.exchange}"
                    logger.warning("message not sent to %s: %r", where, error)
                    return False
            else:
                return True
        return False

    def _publish(self, outgoing: OutgoingMessage) -> None:
        if self._connection is None:
            self._connection = current_app.connection_for_write()
        message = outgoing.message
        properties = {name: message.properties[name] for name in KEPT if name in message.properties}
        Producer(self._connection.default_channel, auto_declare=False).publish(
            message.body,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=dict(outgoing.headers),
            exchange=outgoing.exchange,
            routing_key=outgoing.routing_key,
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


republisher = Republisher()
"""The instance of this process, used in a worker's main process."""

os.register_at_fork(after_in_child=republisher.__init__)  # type: ignore[misc]
