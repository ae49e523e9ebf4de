"""Dead-letter queues on SQS."""

from __future__ import annotations

from .queue import DeadLetterQueue

__all__ = ["DeadLetterQueue"]
