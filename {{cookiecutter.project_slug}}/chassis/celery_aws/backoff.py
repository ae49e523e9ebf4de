"""How long a message stays invisible after a failed attempt."""

from __future__ import annotations

import math
import random

from .contract import Queue


def backoff_seconds(queue: Queue, attempt: int, first_seconds: float | None = None) -> int:
    """Return the backoff after a failed attempt: exponential, with jitter.

    Args:
        queue: the queue of the message.
        attempt: receive count of the failed attempt, from 1.
        first_seconds: backoff after the first attempt, instead of the queue's.

    Returns:
        Whole seconds, at most the queue's visibility timeout; 0 after the last attempt, so that the
        message is dead-lettered at once.
    """
    if attempt >= queue.max_receive_count:
        return 0
    first = queue.retry_backoff_seconds if first_seconds is None else first_seconds
    longest: float = min(longest_backoff_seconds(queue), first * 2 ** min(attempt - 1, 30))
    return math.ceil(longest * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret


def longest_backoff_seconds(queue: Queue) -> int:
    """Return the longest backoff of a queue: its visibility timeout."""
    return queue.visibility_timeout_seconds
