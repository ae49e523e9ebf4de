"""Settings from a module, such as Django's, beside the contract: `app.config_from_object`.

What the application was created with takes precedence over a module. So a module's setting that differs would be
ignored, and is refused instead. All others apply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from celery.app import defaults as _defaults
from celery.app import utils

from .errors import UnsupportedError

# The published types lack what is used here.
defaults: Any = _defaults
detect_settings: Any = utils.detect_settings  # type: ignore[attr-defined]

_BROKER = "environment variables define the broker, see .env.example"
_SCHEDULES = "move its entries to schedules in contract.json"
_OWN = "set it in celery.py, with app.conf.update(...)"

ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "beat_schedule": _SCHEDULES,
        "beat_scheduler": _SCHEDULES,
        "broker_read_url": _BROKER,
        "broker_write_url": _BROKER,
        "worker_concurrency": "set concurrency of a worker in contract.json",
        "worker_max_tasks_per_child": "set tasks_per_child of a worker in contract.json",
    }
)
"""Settings that have no effect in a service, or that would bypass its broker, and what to do instead."""

ADVICE: Mapping[str, str] = MappingProxyType(
    {
        **ELSEWHERE,
        "broker_pool_limit": _OWN,
        "broker_url": _BROKER,
        "include": "set imports instead",
        "result_backend": "results in contract.json names the result backend, and environment variables its place",
        "result_expires": "set result_expires_seconds in contract.json",
        "task_default_queue": "a queue named default, or else the first in contract.json, is the default queue",
        "task_publish_retry_policy": _OWN,
        "task_queues": "set queues in contract.json",
        "task_routes": "set routes in contract.json",
        "timezone": "each schedule in contract.json can have a time zone; times in messages are UTC",
        "worker_proc_alive_timeout": _OWN,
        "worker_prefetch_multiplier": "it follows from the queues of a worker in contract.json",
    }
)
"""What to do about a setting that is refused."""

_KINDS: Mapping[Any, str] = MappingProxyType(
    {
        "bool": "True or False, without quotation marks; of an environment variable, compare its text with 'true'",
        **dict.fromkeys(("int", int), "a whole number, without quotation marks; convert text with int(...)"),
        "float": "a number, without quotation marks; convert text with float(...)",
    }
)
"""What to write for a setting, by the type of Celery's option."""

MAX_SHOWN_CHARACTERS = 80

SECRET = ("broker_", "result_backend", "security_", "redis_", "s3_", "dynamodb_")
"""How the names of settings begin whose values are not shown.

They may contain passwords or keys, also within a list or a mapping.
"""


def check(module: Any, own: Mapping[str, Any], namespace: str | None) -> None:
    """Refuse settings of a module that contradict those of the application, and text in place of a number or boolean.

    Args:
        module: the settings of the module, as a mapping; None without a module.
        own: settings of the application, by their names in lower case.
        namespace: prefix of the names in the module, such as `CELERY`.

    Raises:
        UnsupportedError: lists all of these settings, their values, and what to do.
    """
    if not module:
        return
    given = detect_settings(module, prefix=namespace)
    if found := [*_problems(given, own, namespace), *_texts(given, own, namespace)]:
        raise UnsupportedError("\n".join(found))


def _problems(given: Any, own: Mapping[str, Any], namespace: str | None) -> Iterator[str]:
    for name in sorted({*own, *ELSEWHERE}):
        if not given.value_set_for(name):
            continue
        value = given[name]
        if not _contradicts(name, value, own):
            continue
        advice = ADVICE.get(name, "the guarantees of delivery depend on it")
        is_shown = name in own and name != "task_routes" and not _may_be_secret(name, value)  # Routes are a function.
        here = f"; it is {_shortened(own[name])} here" if is_shown else ""
        yield f"{_described(name, value, namespace)} is not supported{here}. Remove it: {advice}"


def _texts(given: Any, own: Mapping[str, Any], namespace: str | None) -> Iterator[str]:
    """Yield what is wrong with text, such as of an environment variable; Celery would take `"False"` for true."""
    for name, option in sorted(defaults.flatten(defaults.NAMESPACES)):
        kind = _KINDS.get(option.type)
        if kind is None or name in own or name in ELSEWHERE or not given.value_set_for(name):
            continue
        if isinstance(value := given[name], str):
            yield f"{_described(name, value, namespace)} is text. Set {kind}"


def _described(name: str, value: Any, namespace: str | None) -> str:
    """Return the full name of a setting, with its value unless that may be secret."""
    full = f"{namespace}_{name}".upper() if namespace else name
    return full if _may_be_secret(name, value) else f"{full}={_shortened(value)}"


def _contradicts(name: str, value: Any, own: Mapping[str, Any]) -> bool:
    if name in ELSEWHERE:
        return bool(value)
    return bool(_comparable(value) != _comparable(own[name]))


def _comparable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _may_be_secret(name: str, value: Any) -> bool:
    return name.startswith(SECRET) and not isinstance(value, (bool, int, float))


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
