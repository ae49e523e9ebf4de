"""Dead-letter queues on RabbitMQ."""

from __future__ import annotations

from .queue import DeadLetterQueue

__all__ = ["DeadLetterQueue"]
