"""Errors of tasks, shortened so that they fit into a log line, a result and a message."""

from __future__ import annotations

import socket
import traceback as tracebacks
from collections.abc import Mapping

from celery.utils.serialization import create_exception_cls, ensure_serializable
from kombu.utils.json import dumps

from . import errors

MAX_REASON_CHARACTERS = 4_000
"""Limit of the exception and of the traceback in a dead-letter message; a traceback keeps its end."""

MAX_ERROR_BYTES = 20_000
"""Limit of an exception or a traceback in a result or a log line, as JSON; every backend accepts both."""

MAX_BYTES_PER_CHARACTER = 12
"""Of a character in JSON: a surrogate pair, each escaped."""

CUT = " [cut] "

ATTRIBUTE_OVERHEAD_BYTES = 10
"""Overhead of a message attribute or header beside its name and value."""


def describe(error: BaseException) -> str:
    """Return the `repr` of an error within `MAX_ERROR_BYTES`, even if its `repr` raises."""
    try:
        text = repr(error)
    except Exception as broken:  # noqa: BLE001
        text = f"{type(error).__name__}(<its repr raised {type(broken).__name__}>)"
    return cut(text)


def cut(text: str, max_bytes: int = MAX_ERROR_BYTES, *, keep_end: bool = False) -> str:
    """Return a text, cut at one end if it is too long.

    Args:
        text: the text.
        max_bytes: its maximum size as JSON, where a character takes up to 12 bytes.
        keep_end: keep the end of the text instead of its beginning.
    """
    if len(text) * MAX_BYTES_PER_CHARACTER <= max_bytes or len(dumps(text)) <= max_bytes:
        return text
    kept = text[-max_bytes:] if keep_end else text[:max_bytes]
    while len(dumps(kept)) > max_bytes - len(CUT):
        most = len(kept) * 3 // 4
        kept = kept[-most:] if keep_end else kept[:most]
    return f"{CUT}{kept}" if keep_end else f"{kept}{CUT}"


def storable(error: BaseException) -> Exception:
    """Return an error that any result backend can store: itself, or one of the same name with its text."""
    if not isinstance(error, Exception):
        return errors.TaskAbortedError(describe(error))
    try:
        if len(dumps(ensure_serializable(list(error.args), dumps))) <= MAX_ERROR_BYTES:
            return error
    except Exception:  # noqa: BLE001, S110 - an argument that cannot be serialized
        pass
    kind = type(error)
    made: Exception = create_exception_cls(kind.__name__, kind.__module__)(describe(error))
    return made.with_traceback(error.__traceback__)


def reason_of(error: BaseException, attempt: int) -> dict[str, str]:
    """Return why a message is dead-lettered: exception, traceback, host and attempt.

    Args:
        error: the error of the last attempt.
        attempt: the receive count of that attempt.
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
    """Return as much of a reason as fits into a dead-letter message.

    Args:
        reason: as returned by `reason_of`.
        room_bytes: space for names and values, in UTF-8.
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
    """Return a text without the characters that brokers do not accept in a message attribute."""
    return "".join(c for c in text if c in "\t\n\r" or c.isprintable())
