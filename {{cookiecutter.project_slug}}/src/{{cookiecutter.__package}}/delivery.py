"""What becomes of a message whose task was not done."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker import consumer
from kombu.message import Message

logger = logging.getLogger(__name__)


class Consumer(consumer.Consumer):
    """Celery's consumer of messages, which loses none."""

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Leave a message whose body cannot be read in its queue; Celery would delete it."""
        headers: Any = message.headers or {}
        logger.error("The body of task %s[%s] cannot be read: %r", headers.get("task"), headers.get("id"), exc)
        message.reject()
