"""Dead-letter queues at RabbitMQ."""

from __future__ import annotations

from .queue import DeadLetterQueue

__all__ = ["DeadLetterQueue"]
