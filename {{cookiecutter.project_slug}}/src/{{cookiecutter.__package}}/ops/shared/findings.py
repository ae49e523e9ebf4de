"""What `doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The answer to one check."""

    code: str
    """Stable; docs/operations.md lists them all."""
    subject: str
    """What was looked at: a queue, say."""
    is_well: bool | None
    """Nothing if it could not be looked at."""
    says: str
    advice: str = ""
    """What to do about it."""


def well(code: str, subject: str, says: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(code, subject, True, says)


def wrong(code: str, subject: str, says: str, advice: str) -> Finding:
    """Return a finding that something is not as it should be."""
    return Finding(code, subject, False, says, advice)


def unknown(code: str, subject: str, says: str, advice: str) -> Finding:
    """Return a finding that something could not be looked at."""
    return Finding(code, subject, None, says, advice)
