"""Validation of the headers and the body of a message, before a worker acts on them.

Anyone who may send to a queue can send anything. Celery checks most fields only while it processes a message.

https://docs.celeryq.dev/en/stable/internals/protocol.html#version-2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from celery.app.task import Context
from celery.exceptions import InvalidTaskError

MAX_SHOWN_CHARACTERS = 60

SCHEDULED_TIME_HEADER = "scheduled_time"
"""Header of a scheduled message with the time at which it was due; a task reads `self.request.scheduled_time`."""

MAX_ID_CHARACTERS = 128
"""Longest message group and deduplication id at SQS.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""


def is_identifier(text: str) -> bool:
    """Return whether SQS accepts a text as message group or deduplication id: visible ASCII characters."""
    return 1 <= len(text) <= MAX_ID_CHARACTERS and all("!" <= character <= "~" for character in text)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_identifier(value: Any) -> bool:
    return isinstance(value, str) and is_identifier(value)


def _is_named(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_flag(value: Any) -> bool:
    return isinstance(value, int) and value in (0, 1)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _are_limits(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(
            item is None or (isinstance(item, (int, float)) and not isinstance(item, bool) and item >= 0)
            for item in value
        )
    )


def _is_signature(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and _is_named(value.get("task"))
        and isinstance(value.get("args") or [], (list, tuple))
        and isinstance(value.get("kwargs") or {}, Mapping)
        and isinstance(value.get("options") or {}, Mapping)
    )


def _are_signatures(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_signature, value))


def _are_errbacks(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_named(item) or _is_signature(item) for item in value)


_TEXT = (_is_text, "text")
_IDENTIFIER = (_is_identifier, f"1 to {MAX_ID_CHARACTERS} visible ASCII characters")
_COUNT = (_is_count, "a whole number from 0")
_SIGNATURES = (_are_signatures, "a list of signatures")

RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = MappingProxyType(
    {
        "task": (_is_named, "the name of a task"),
        "id": (_is_named, "text that is not empty"),
        **dict.fromkeys(("root_id", "parent_id", "group", "request_id"), _TEXT),
        **dict.fromkeys(("client_version", "client_signature"), _IDENTIFIER),
        **dict.fromkeys(("shadow", "origin", "lang", "argsrepr", "kwargsrepr"), _TEXT),
        **dict.fromkeys(("eta", "expires"), (_is_named, "a time with its zone")),
        **dict.fromkeys(("retries", "group_index", "replaced_task_nesting"), _COUNT),
        "timelimit": (_are_limits, "a list of two: hard and soft limit in seconds, or null"),
        "ignore_result": (_is_flag, "true or false"),
        "stamped_headers": (_are_texts, "a list of texts"),
        "stamps": (_is_object, "an object"),
        "headers": (_is_object, "an object"),
        **dict.fromkeys(("callbacks", "chain"), _SIGNATURES),
        "errbacks": (_are_errbacks, "a list of signatures or task names"),
        "chord": (_is_signature, "a signature"),
    }
)
"""The check of each field that is present and not null, and the rule in words."""

REQUIRED = ("task", "id")

FOLLOWING = frozenset({"callbacks", "errbacks", "chain", "chord"})
"""The only fields allowed in the third part of a body; Celery lets that replace any field of the request."""

RESERVED = frozenset(
    name
    for name in dir(Context)
    if not name.startswith("__") and (name.startswith("_") or callable(getattr(Context, name)))
)
"""Names that no header may have: they would replace methods and internals of the task's request."""


def check(headers: Mapping[str, Any], body: Any) -> None:
    """Refuse a message that Celery cannot process.

    Args:
        headers: headers of the message.
        body: decoded body: arguments, keyword arguments and embedded signatures.

    Raises:
        InvalidTaskError: the message is invalid; all problems are listed.
    """
    if not (isinstance(body, (list, tuple)) and len(body) == 3):
        raise InvalidTaskError("invalid body: it must be a list of arguments, keyword arguments and signatures")
    args, kwargs, following = body
    wrong = []
    if not isinstance(args, (list, tuple)):
        wrong.append(f"the arguments must be a list, not {_kind(args)}")
    if not isinstance(kwargs, Mapping):
        wrong.append(f"the keyword arguments must be an object, not {_kind(kwargs)}")
    if not isinstance(following, Mapping):
        wrong.append(f"the signatures must be an object, not {_kind(following)}")
        following = {}
    elif unknown := following.keys() - FOLLOWING:
        others = _shown(", ".join(sorted(map(str, unknown))))
        wrong.append(f"the signatures must have only the fields {', '.join(sorted(FOLLOWING))}, not {others}")
    fields = {**headers, **following}
    for name, (holds, rule) in RULES.items():
        value = fields.get(name)
        if (value is not None or name in REQUIRED) and not holds(value):
            wrong.append(f"{name} must be {rule}, not {_shown(value)}")
    if reserved := RESERVED & headers.keys():
        wrong.append(f"headers must not be named {', '.join(sorted(reserved))}; rename them")
    if wrong:
        raise InvalidTaskError(f"invalid message: {'; '.join(wrong)}")


def valid(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a message without the invalid ones."""
    return {
        name: value
        for name, value in fields.items()
        if name not in RESERVED and (name not in RULES or value is None or RULES[name][0](value))
    }


def completed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the signatures that follow a task, with the fields that Celery requires of them.

    Producers in other languages may leave out all but `task`.
    """
    return {name: _completed(fields[name]) for name in FOLLOWING if fields.get(name)}


def _completed(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_completed(item) for item in value]
    if not isinstance(value, Mapping):  # The name of a task.
        return value
    given = {name: field for name, field in value.items() if field is not None}
    return {"args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False, **given}


def _kind(value: Any) -> str:
    """Return the type of a value; arguments of tasks must not appear in logs."""
    return type(value).__name__


def _shown(value: Any) -> str:
    if isinstance(value, (Mapping, list, tuple)):  # It may contain arguments.
        return _kind(value)
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
