"""Durations and counts as people read them."""

from __future__ import annotations


def age(seconds: float) -> str:
    """Format a duration in about four characters."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


def counted(count: object, noun: str) -> str:
    """Return a number with its noun, which is in the plural unless the number is 1."""
    return f"{count} {noun}" if str(count) == "1" else f"{count} {noun}s"
