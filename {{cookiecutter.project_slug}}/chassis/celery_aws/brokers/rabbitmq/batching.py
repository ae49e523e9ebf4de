"""Sending messages in batches, and checking their size."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amqp import Message
from amqp.exceptions import AMQPError, MessageNacked

from ...errors import MessageTooLargeError, NotAllSentError
from .. import SIZE_MARGIN_BYTES

if TYPE_CHECKING:
    from .. import Composed

logger = logging.getLogger(__name__)

MESSAGES_PER_CONFIRM = 100
"""Messages sent before waiting for confirms: enough to make waiting cheap, few enough to make retries cheap."""

ATTEMPTS = 4
FIRST_BACKOFF_SECONDS = 0.1


def check_size(message: Any, max_message_bytes: int, reserved_bytes: int = 0) -> None:
    """Refuse a message that is too large; a broker that runs out of memory accepts no messages at all.

    Raises:
        MessageTooLargeError: it is larger than `max_message_bytes`.
    """
    headers = message.properties.get("application_headers") or {}
    size = len(message.body) + len(str(headers)) + reserved_bytes
    if size > max_message_bytes:
        raise MessageTooLargeError(
            f"{headers.get('task')} was not sent: its message has {size:,} bytes, but max_message_bytes in "
            f"contract.json is {max_message_bytes:,}. Store large data elsewhere, and send its location."
        )


def check_prepared_size(message: Composed, transport_options: Mapping[str, Any]) -> None:
    """Refuse a message that is to be sent later; see `Broker.check_prepared_size`."""
    made = Message(message.body, application_headers=dict(message.headers))
    check_size(made, transport_options["service_config"].contract.max_message_bytes, SIZE_MARGIN_BYTES)


class Batch:
    """Messages that are sent together at the end of a `with` block, or discarded if it raises.

    kombu's `Producer.batch` creates and uses it.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self._waiting: list[tuple[Any, str, str]] = []

    def publish(self, message: Any, exchange: str = "", routing_key: str = "", **options: Any) -> None:
        """Add a message.

        Raises:
            MessageTooLargeError: it is larger than the contract's `max_message_bytes`.
        """
        check_size(message, self.channel.connection.contract.max_message_bytes)
        self._waiting.append((message, exchange, routing_key))

    def discard(self) -> None:
        """Discard the messages."""
        self._waiting.clear()

    close = discard

    def flush(self) -> None:
        """Send all messages.

        Raises:
            NotAllSentError: some messages could not be sent; all others were.
        """
        waiting, self._waiting = self._waiting, []
        failed: list[tuple[str, str, str]] = []
        for start in range(0, len(waiting), MESSAGES_PER_CONFIRM):
            try:
                failed += self._send(waiting[start : start + MESSAGES_PER_CONFIRM])
            except (AMQPError, OSError) as error:
                # Give up: it is unknown whether these were sent, and each further wait would time out, too.
                failed += [_named(message, error) for message, _, _ in waiting[start:]]
                break
        if failed:
            raise NotAllSentError(failed)

    def _send(self, messages: list[tuple[Any, str, str]]) -> list[tuple[str, str, str]]:
        """Send messages, and retry those that the broker rejected; return those not sent, with the reason."""
        failed: list[tuple[str, str, str]] = []
        for attempt in range(ATTEMPTS):
            if attempt:
                logger.warning("the broker rejected %d messages, retrying", len(messages))
                time.sleep(FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1))  # noqa: S311
            refused = self.channel.publish_all(messages)
            last = attempt == ATTEMPTS - 1
            final = {index for index, error in refused.items() if last or not isinstance(error, MessageNacked)}
            failed += [_named(messages[index][0], refused[index]) for index in sorted(final)]
            messages = [messages[index] for index in sorted(refused.keys() - final)]
            if not messages:
                break
        return failed


def _named(message: Any, error: Exception) -> tuple[str, str, str]:
    headers = message.properties.get("application_headers") or {}
    return str(headers.get("id")), str(headers.get("task")), str(error)
