"""Durations as people read them."""

from __future__ import annotations


def age(seconds: float) -> str:
    """Format a duration in about four characters."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"
