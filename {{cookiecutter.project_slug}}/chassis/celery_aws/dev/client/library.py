"""Which part of this library a client contains: what the application of a producer imports."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from ...contract import OPTION_NAMES, Contract

LIBRARY = Path(__file__).parents[2]

ROOTS = ("aio", "remote", "task")
"""Modules that nothing imports by a statement: what a client's own modules import, and the class of its tasks."""


def parts(contract: Contract) -> tuple[list[Path], set[str]]:
    """Return what a client needs of this library.

    A part that is a folder is needed as a whole, except for options that the service does not use.

    Returns:
        The paths of modules, and the names of the top-level modules outside of this library that they import.
    """
    unused = OPTION_NAMES - contract.option_names
    needed: dict[str, list[Path]] = {}
    outside: set[str] = set()
    waiting = [*ROOTS, *(("spans",) if contract.tracing else ())]
    while waiting:
        if (name := waiting.pop()) in needed:
            continue
        needed[name] = list(_files(name, unused))
        for path in needed[name]:
            for module, is_own in _imports(path):
                (waiting.append if is_own else outside.add)(module)
    return [path for paths in needed.values() for path in paths], outside


def copy(paths: Collection[Path], target: Path) -> None:
    """Copy modules of this library into a package."""
    for path in paths:
        copied = target / path.relative_to(LIBRARY)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
    (target / "__init__.py").write_text('"""The part of celery_aws that sending needs."""\n', encoding="utf-8")


def _files(name: str, unused: Collection[str]) -> Iterator[Path]:
    """Yield the modules of a part, without those of unused options."""
    found = (LIBRARY / name).rglob("*.py") if (LIBRARY / name).is_dir() else (LIBRARY / f"{name}.py",)
    for path in found:
        if not {*unused} & {*re.split(r"[/._]", path.relative_to(LIBRARY).as_posix())}:
            yield path


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield what importing a module imports: names of parts of this library, and of modules outside of it.

    An import within a function, or for type checkers only, is none.
    """
    level = len(path.relative_to(LIBRARY).parts)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0], False
        elif isinstance(node, ast.ImportFrom) and node.level == level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((name.partition(".")[0], True) for name in names)
