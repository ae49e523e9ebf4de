"""Pages that refresh themselves, without a script."""

from __future__ import annotations

from flask import request

EVERY_SECONDS = 5


def refresh_seconds(*, is_live: bool) -> int:
    """Return after how many seconds a page refreshes itself; 0 for not at all.

    Args:
        is_live: whether it does unless somebody has paused it; requests to AWS may be charged.
    """
    chosen = request.args.get("refresh")
    return EVERY_SECONDS if (chosen == "on" if chosen else is_live) else 0
