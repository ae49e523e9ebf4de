"""Errors of tasks, cut and cleaned so that they fit: into a log line, a result and a message."""

from __future__ import annotations

import socket
import traceback as tracebacks
from collections.abc import Mapping

from celery.utils.serialization import create_exception_cls, ensure_serializable
from kombu.utils.json import dumps

from . import errors

MAX_REASON_CHARACTERS = 4_000
"""Limit for the exception and the traceback in a dead-letter message; a traceback keeps its end."""

MAX_ERROR_BYTES = 20_000
"""Limit for an exception or a traceback that is stored as a result or logged, as JSON: every backend takes both."""


MAX_BYTES_PER_CHARACTER = 12

CUT = " [cut] "

ATTRIBUTE_OVERHEAD_BYTES = 10
"""What a message's attribute or header takes beside its name and its value."""


def describe(error: BaseException) -> str:
    """Return the type and text of an error, whatever its `repr` does, within `MAX_ERROR_BYTES`."""
    try:
        text = repr(error)
    except Exception as broken:  # noqa: BLE001
        text = f"{type(error).__name__}(<its repr raised {type(broken).__name__}>)"
    return cut(text)


def cut(text: str, max_bytes: int = MAX_ERROR_BYTES, *, keep_end: bool = False) -> str:
    """Return a text, or so much of its beginning or end as fits.

    Args:
        text: to cut.
        max_bytes: that it may have as JSON, in which a character has up to 12.
        keep_end: whether its end is to be kept.
    """
    if len(text) * MAX_BYTES_PER_CHARACTER <= max_bytes or len(dumps(text)) <= max_bytes:
        return text
    kept = text[-max_bytes:] if keep_end else text[:max_bytes]
    while len(dumps(kept)) > max_bytes - len(CUT):
        most = len(kept) * 3 // 4
        kept = kept[-most:] if keep_end else kept[:most]
    return f"{CUT}{kept}" if keep_end else f"{kept}{CUT}"


def storable(error: BaseException) -> Exception:
    """Return an error that any result backend can store: itself, or one of its name with its text."""
    if not isinstance(error, Exception):
        return errors.TaskAbortedError(describe(error))
    try:
        if len(dumps(ensure_serializable(list(error.args), dumps))) <= MAX_ERROR_BYTES:
            return error
    except Exception:  # noqa: BLE001, S110 - an argument that cannot be shown
        pass
    kind = type(error)
    made: Exception = create_exception_cls(kind.__name__, kind.__module__)(describe(error))
    return made.with_traceback(error.__traceback__)


def reason_of(error: BaseException, attempt: int) -> dict[str, str]:
    """Return why a message is dead-lettered, as the on-call engineer wants to know it.

    Args:
        error: what the last attempt failed with.
        attempt: its number, which is the receive count.
    """
    lines = tracebacks.format_exception(type(error), error, error.__traceback__) if error.__traceback__ else []
    reason = {
        "FailureException": _printable(describe(error))[:MAX_REASON_CHARACTERS],
        "FailureTraceback": _printable("".join(lines))[-MAX_REASON_CHARACTERS:],
        "FailureHost": _printable(socket.gethostname()),
        "FailureAttempt": str(attempt),
    }
    return {name: value for name, value in reason.items() if value}


def fitting(reason: Mapping[str, str], room_bytes: int) -> dict[str, str]:
    """Return so much of the reason of a dead letter as has room beside what else its message holds.

    Args:
        reason: by `reason_of`.
        room_bytes: for names and values, in UTF-8.
    """
    kept = {}
    for name in ("FailureAttempt", "FailureException", "FailureHost", "FailureTraceback"):
        value = reason.get(name, "").encode()
        left = room_bytes - len(name) - ATTRIBUTE_OVERHEAD_BYTES
        value = (
            (value[max(0, len(value) - left) :] if name == "FailureTraceback" else value[:left]) if left > 0 else b""
        )
        if text := value.decode(errors="ignore"):
            kept[name] = text
            room_bytes -= len(name) + ATTRIBUTE_OVERHEAD_BYTES + len(text.encode())
    return kept


def _printable(text: str) -> str:
    """Return a text without what brokers do not take in an attribute of a message."""
    return "".join(c for c in text if c in "\t\n\r" or c.isprintable())
