"""Untrusted text on pages. Jinja escapes HTML; this is about what a browser shows differently from what is there."""

from __future__ import annotations

import json
import time
from typing import Any

from markupsafe import Markup


def readable(value: Any) -> Any:
    """Return a value without control characters, such as those that reverse the direction of text.

    Line breaks and tabs stay.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{MIDDLE DOT}" for c in value)


def editable(text: str) -> str:
    """Return JSON with indentation; characters that are not printable are escaped, so that none is lost in a form."""
    try:
        indented = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
    # JSON has such characters in strings only.
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in indented)


def utc(seconds: float) -> str:
    """Return a time, in seconds since 1970, as text."""
    return f"{time.strftime('%F %T', time.gmtime(seconds))} UTC" if seconds else "unknown"
