"""Celery on AWS: what runs a service, and the names that a service may use.

Everything else in here may change with any version. `README.md` above says what each name is for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors
    from .app import create_app
    from .cli import run_command
    from .logs import request_id
    from .sending import Service
    from .settings import Settings
    from .task import Task
    from .version import __version__

__all__ = [
    "Service",
    "Settings",
    "Task",
    "__version__",
    "create_app",
    "errors",
    "request_id",
    "run_command",
]

_HOMES = {
    "Service": "sending",
    "Settings": "settings",
    "Task": "task",
    "__version__": "version",
    "create_app": "app",
    "request_id": "logs",
    "run_command": "cli",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: commands start fast, and generation has little of this installed."""
    if name == "errors":
        return importlib.import_module(f"{__name__}.errors")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
