"""Sending many messages with few waits for the broker, and none that is too large for it."""

from __future__ import annotations

import logging
import random
import time
from typing import Any

from amqp.exceptions import AMQPError, MessageNacked

from ...errors import MessageTooLargeError, NotAllSentError

logger = logging.getLogger(__name__)

MESSAGES_PER_WAIT = 100
"""How many are sent before the broker is waited for: so many that waiting costs little, so few that repeating does."""

ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.1


def check_size(message: Any, max_message_bytes: int) -> None:
    """Refuse a message that is too large: large messages fill the broker's memory, which then takes none at all.

    Raises:
        MessageTooLargeError: it has more than `max_message_bytes`.
    """
    headers = message.properties.get("application_headers") or {}
    size = len(message.body) + len(str(headers))
    if size > max_message_bytes:
        raise MessageTooLargeError(
            f"{headers.get('task')} was not sent: its message has {size:,} bytes, and max_message_bytes in "
            f"contract.json is {max_message_bytes:,}. Keep what is large elsewhere, and send where it is."
        )


class Batch:
    """Messages that are sent together when the `with` block around them ends, or not at all if it raises.

    kombu's `Producer.batch` makes and drives it.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self._waiting: list[tuple[Any, str, str]] = []

    def publish(self, message: Any, exchange: str = "", routing_key: str = "", **options: Any) -> None:
        """Take a message up.

        Raises:
            MessageTooLargeError: it has more than the contract's `max_message_bytes`.
        """
        check_size(message, self.channel.connection.contract.max_message_bytes)
        self._waiting.append((message, exchange, routing_key))

    def discard(self) -> None:
        """Forget what has not been sent."""
        self._waiting.clear()

    close = discard

    def flush(self) -> None:
        """Send everything.

        Raises:
            NotAllSentError: some could not be sent; all others were.
        """
        waiting, self._waiting = self._waiting, []
        failed: list[tuple[str, str, str]] = []
        for start in range(0, len(waiting), MESSAGES_PER_WAIT):
            try:
                failed += self._send(waiting[start : start + MESSAGES_PER_WAIT])
            except (AMQPError, OSError) as error:
                # Of these nothing is known, and thousands more would each wait for the same.
                failed += [_named(message, error) for message, _, _ in waiting[start:]]
                break
        if failed:
            raise NotAllSentError(failed)

    def _send(self, messages: list[tuple[Any, str, str]]) -> list[tuple[str, str, str]]:
        """Send messages, and again what the broker could not keep; return those that were not sent, and why."""
        failed: list[tuple[str, str, str]] = []
        for attempt in range(ATTEMPTS):
            if attempt:
                logger.warning("The broker could not keep %d messages", len(messages))
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1))  # noqa: S311
            refused = self.channel.publish_all(messages)
            last = attempt == ATTEMPTS - 1
            final = {place for place, error in refused.items() if last or not isinstance(error, MessageNacked)}
            failed += [_named(messages[place][0], refused[place]) for place in sorted(final)]
            messages = [messages[place] for place in sorted(refused.keys() - final)]
            if not messages:
                break
        return failed


def _named(message: Any, error: Exception) -> tuple[str, str, str]:
    headers = message.properties.get("application_headers") or {}
    return str(headers.get("id")), str(headers.get("task")), str(error)
