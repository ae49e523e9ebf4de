"""How long a message stays invisible after a failed attempt."""

from __future__ import annotations

import math
import random

from .contract import Queue


def backoff_seconds(queue: Queue, attempt: int, first_seconds: float | None = None) -> int:
    """Return the backoff after a failed attempt: doubled with each attempt, with jitter.

    Args:
        queue: whose message failed.
        attempt: receive count of the attempt that failed, from 1.
        first_seconds: backoff after the first attempt, instead of the queue's.

    Returns:
        Whole seconds; at most the queue's visibility timeout, and 0 after the last attempt, so that the message gets to
        the dead-letter queue at once.
    """
    if attempt >= queue.max_receive_count:
        return 0
    first = queue.retry_backoff_seconds if first_seconds is None else first_seconds
    longest: float = min(queue.visibility_timeout_seconds, first * 2 ** min(attempt - 1, 30))
    return math.ceil(longest * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
