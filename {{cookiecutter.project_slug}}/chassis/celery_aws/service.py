"""The service that this library runs.

The service passes the name of its package. The library finds the contract, the application and the
tasks from that name, and imports nothing of the service directly.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from importlib.machinery import all_suffixes
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from .contract import Contract, read

if TYPE_CHECKING:
    from .sending import Service

_package = ""


def use(package: str) -> None:
    """Set the service's package for this process."""
    global _package
    _package = package


def owns(frame: FrameType) -> bool:
    """Return whether a frame is one of the service's package."""
    return str(frame.f_globals.get("__name__", "")).startswith(f"{_package}.")


def find_contract() -> Path:
    """Return the path of the contract: `CONTRACT_FILE`, or in the installed package, or in the project root.

    If no package was set, as in `make dev`, the project root is the current directory.
    """
    if chosen := os.environ.get("CONTRACT_FILE"):
        return Path(chosen)
    spec = importlib.util.find_spec(_package) if _package else None
    if spec is None or spec.origin is None:
        return Path("contract.json")
    installed = Path(spec.origin).with_name("contract.json")
    return installed if installed.exists() else Path(spec.origin).parents[2] / "contract.json"


def contract() -> Contract:
    """Return the contract of the service.

    Raises:
        ContractError: it is not a JSON object or breaks rules; all broken rules are listed.
        OSError: the file cannot be read.
    """
    return read(find_contract())


def has_module(name: str) -> bool:
    """Return whether a module of a package exists, `acme_jobs.tasks.high` for example.

    This looks for files. `importlib.util.find_spec` would import `acme_jobs.tasks`, which may import the application,
    which is being built when this is called.
    """
    package, *inner = name.split(".")
    spec = importlib.util.find_spec(package)
    for place in (spec and spec.submodule_search_locations) or ():
        path = Path(place, *inner)
        names = (path, path / "__init__")
        if any(Path(f"{stem}{suffix}").is_file() for stem in names for suffix in all_suffixes()):
            return True
    return False


def task_modules(contract: Contract) -> list[str]:
    """Return the modules of tasks that exist: one per queue, and the examples until the owner deletes them."""
    names = (*(f"tasks.{queue.module}" for queue in contract.queues), "examples")
    return [module for name in names if has_module(module := f"{contract.package}.{name}")]


def app() -> Service[Any]:
    """Return the application of the service, `app` in the `celery.py` of its package.

    Raises:
        ContractError: the contract breaks rules.
        SettingsError: environment variables are missing or invalid.
    """
    made: Service[Any] = importlib.import_module(f"{_package}.celery").app
    return made
