"""Celery on AWS queues: the public names of the library.

Everything else in this package may change in any version. chassis/README.md describes each name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import aio, errors
    from .app import create_app
    from .cli import run_command
    from .coroutines import run_coroutine
    from .log_fields import request_id
    from .sending import Service
    from .settings import Settings
    from .task import Task
    from .version import __version__

__all__ = [
    "Service",
    "Settings",
    "Task",
    "__version__",
    "aio",
    "create_app",
    "errors",
    "request_id",
    "run_command",
    "run_coroutine",
]

_MODULES = {
    "Service": "sending",
    "Settings": "settings",
    "Task": "task",
    "__version__": "version",
    "create_app": "app",
    "request_id": "log_fields",
    "run_command": "cli",
    "run_coroutine": "coroutines",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that commands start fast.

    Project generation imports `celery_aws.contract` without most dependencies installed.
    """
    if name in ("aio", "errors"):
        return importlib.import_module(f"{__name__}.{name}")
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
