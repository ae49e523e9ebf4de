"""Celery on AWS queues: the public names of the library.

Everything else in this package may change in any version. chassis/README.md describes each name.
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

_MODULES = {
    "Service": "sending",
    "Settings": "settings",
    "Task": "task",
    "__version__": "version",
    "create_app": "app",
    "request_id": "logs",
    "run_command": "cli",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that commands start fast.

    Project generation imports `celery_aws.contract` without most dependencies installed.
    """
    if name == "errors":
        return importlib.import_module(f"{__name__}.errors")
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
