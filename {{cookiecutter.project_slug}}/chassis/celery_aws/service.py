"""The service that this library runs.

It hands over the name of its package, and nothing else: its contract, its application and its tasks are found from
there. The library imports none of them by a name of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .contract import Contract, read

if TYPE_CHECKING:
    from .sending import Service

_package = ""


def use(package: str) -> None:
    """Take the name of the service's package."""
    global _package
    _package = package


def find_contract() -> Path:
    """Return where the contract is: `CONTRACT_FILE`, in the installed package, or in the project's root.

    Where no package was handed over, as in `make dev`, the root is the folder that a command was started in.
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
        ContractError: it is no JSON object or breaks rules; all of them are listed.
        OSError: it cannot be read.
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
    """Return the application of the service, from `celery.py` in its package.

    Raises:
        ContractError: the contract breaks rules.
        SettingsError: environment variables are missing or wrong.
    """
    made: Service[Any] = importlib.import_module(f"{_package}.celery").app
    return made
