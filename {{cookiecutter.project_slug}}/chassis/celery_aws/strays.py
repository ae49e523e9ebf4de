"""Finds modules in `tasks/` that no worker loads, because they belong to no queue."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .contract import Contract


def stray_modules(contract: Contract, folder: Path | None = None) -> dict[str, str]:
    """Return why no worker loads some modules in `tasks/`, by the modules' names.

    The names of helpers without tasks begin with an underscore.

    Args:
        contract: the contract of the service.
        folder: the service's package; by default the one that is installed.
    """
    if folder is None:
        spec = importlib.util.find_spec(contract.package)
        folders = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    else:
        folders = [folder]
    found = [path for place in folders for path in sorted((place / "tasks").glob("*"))]
    modules = {path.stem: path.name for path in found if path.suffix == ".py" or (path / "__init__.py").exists()}
    known = {queue.module for queue in contract.queues}
    return {
        module: f"tasks/{name} belongs to no queue of contract.json: add the queue, or rename the file"
        for module, name in modules.items()
        if module not in known and not module.startswith("_")
    }
