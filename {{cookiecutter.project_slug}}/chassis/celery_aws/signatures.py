"""The parameters of a task, as text: for its client, and to notice a client that no longer fits.

Clients are built from this text, and workers compare it, so both sides derive it with the same code.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import ArgumentsError

logger = logging.getLogger(__name__)

OTHER_DEFAULT = "DEFAULT"
"""Stands for a default that is no JSON value; only the worker knows it."""

CLIENT_VERSION, CLIENT_SIGNATURE = "client_version", "client_signature"
"""Headers of a client's messages: its version, and the fingerprint of the task for which it was built."""

_WRAPPING = ("celery.", f"{__package__}.")
"""Where wrappers are defined that leave a task's parameters as they are: `autoretry_for`, `pydantic`, coroutines."""

_PLAIN = (bool, int, float, str, list, dict, tuple)
_GENERIC = {list: "list", dict: "dict", tuple: "tuple", Sequence: "Sequence", Mapping: "Mapping"}


class _Code(str):
    """Text that `inspect.Signature` shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature_text(task: Any) -> str:
    """Return the parameters and the return type of a task, as in `(text: str, *, loud: bool = False) -> str`.

    Types that JSON does not have become `Any`. A bound task has no `self`.
    """
    run = task.run
    try:
        found = inspect.signature(_declared(run), follow_wrapped=False)
    except (NameError, TypeError, ValueError):  # A callable without one, or an annotation for type checkers only.
        return "(*args: Any, **kwargs: Any) -> Any"
    known = getattr(inspect.unwrap(run), "__globals__", {})
    parameters = [
        each.replace(
            annotation=_Code(_type(each.annotation, known)),
            default=each.default if each.default is each.empty else _Code(_default(each.default)),
        )
        for each in found.parameters.values()
    ]
    result = _Code(_type(found.return_annotation, known))
    return str(found.replace(parameters=parameters, return_annotation=result))


def _declared(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a task was made of, without the wrappers of Celery and of this library.

    A decorator of the service may supply arguments, so its own parameters count, as when Celery checks arguments.
    """
    if isinstance(run, types.MethodType):
        return types.MethodType(_declared(run.__func__), run.__self__)
    defined_in = getattr(run, "__globals__", {}).get("__name__", "")
    if hasattr(run, "__wrapped__") and defined_in.startswith(_WRAPPING):
        return _declared(run.__wrapped__)
    return run


def fingerprint(task: Any) -> str:
    """Return a short hash of a task's parameters and its return type."""
    return hashlib.sha256(signature_text(task).encode()).hexdigest()[:8]


@functools.lru_cache(maxsize=1024)
def check_client(task: Any, version: str, made_for: str) -> None:
    """Log a warning if a client was built for another signature of a task; once per client version and task.

    Args:
        task: the task.
        version: the version of the client.
        made_for: the fingerprint of the task for which the client was built.
    """
    if made_for != fingerprint(task):
        logger.warning(
            "client %s was built for other parameters of this task than %s; build and install a new one",
            version,
            signature_text(task),
            extra={"task": task.name},
        )


def as_arguments_error(task: Any, request: Any, error: Any) -> Any:
    """Return `ArgumentsError` in place of a TypeError if the arguments of a message do not fit the task.

    Args:
        task: the task, which raised the error.
        request: the request, with the arguments.
        error: the error.
    """
    reason = misfit(task, request.args, request.kwargs) if isinstance(error, TypeError) else ""
    if not reason:
        return error
    version = getattr(request, CLIENT_VERSION, None)
    producer = f"client {version}" if version else "a producer of another version"
    text = f"the arguments do not fit {task.name}{signature_text(task)}: {reason}; sent by {producer}"
    return ArgumentsError(text).with_traceback(error.__traceback__)


def misfit(task: Any, args: Any, kwargs: Any) -> str:
    """Return why arguments do not fit a task; an empty text if they do, or if Celery does not know its parameters."""
    check: Callable[..., Any] | None = getattr(task, "__header__", None)
    try:
        if check is not None:
            check(*(args or ()), **(kwargs or {}))
    except TypeError as error:
        return str(error)
    return ""


def _type(annotation: Any, known: Mapping[str, Any]) -> str:
    """Return an annotation as code; `Any` for what JSON does not have, and for names that cannot be resolved."""
    if isinstance(annotation, str):
        holder = type("Holder", (), {"__annotations__": {"it": annotation}})
        try:
            annotation = typing.get_type_hints(holder, dict(known))["it"]
        except Exception:  # noqa: BLE001 - it is evaluated, and may be imported for type checkers only
            return "Any"
    return _shown(annotation)


def _shown(kind: Any) -> str:
    """Return a type as code."""
    if kind is None or kind is type(None):
        return "None"
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        shown = [_shown(each) for each in inner]
        return "Any" if "Any" in shown else " | ".join(shown)
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, inner))}]" if all(type(each) in _PLAIN for each in inner) else "Any"
    if origin in _GENERIC:
        return f"{_GENERIC[origin]}[{', '.join('...' if each is ... else _shown(each) for each in inner)}]"
    if kind in (list, dict, tuple):
        return {list: "list[Any]", dict: "dict[str, Any]", tuple: "tuple[Any, ...]"}[kind]
    return kind.__name__ if kind in _PLAIN else "Any"


def _default(value: Any) -> str:
    """Return a default as code."""
    return repr(value) if is_json(value) else OTHER_DEFAULT


def is_json(value: Any) -> bool:
    """Return whether a value is one of JSON, or a tuple of such."""
    if isinstance(value, float):
        return type(value) is float and math.isfinite(value)
    if type(value) in (list, tuple):
        return all(map(is_json, value))
    if type(value) is dict:
        return all(type(key) is str and is_json(inner) for key, inner in value.items())
    return value is None or type(value) in (bool, int, str)
