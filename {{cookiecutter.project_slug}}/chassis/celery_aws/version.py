"""The version of this library; as a command, which files of the chassis differ from it."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from .contract import CHOICES

HERE = Path(__file__).parent
CHASSIS = HERE.parent
SUMS = "SHA256SUMS"
"""Has a line for each file of this version and of all options, as `sha256sum` writes it; generation makes it."""
_INSTALLED = HERE / "VERSION"
"""Where a wheel has the file that lies above the package in a checkout."""

__version__ = (_INSTALLED if _INSTALLED.exists() else CHASSIS / "VERSION").read_text(encoding="utf-8").strip()


def sums(chassis: Path = CHASSIS) -> dict[str, str]:
    """Return the SHA-256 of every file of a chassis by its path, except what Python, Terraform and this write."""
    files = (path for path in sorted(chassis.rglob("*")) if path.is_file())
    return {
        path.relative_to(chassis).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != SUMS and "__pycache__" not in path.parts and not _is_of_terraform(path.relative_to(chassis))
    }


def _is_of_terraform(path: Path) -> bool:
    """Return whether `terraform init` made a file: providers, what it knows of the backend, and their hashes."""
    return any(part.startswith(".terraform") for part in path.parts)


def write(chassis: Path) -> None:
    """Record the files of a chassis as those of its version."""
    lines = (f"{digest}  {name}\n" for name, digest in sums(chassis).items())
    (chassis / SUMS).write_bytes("".join(lines).encode())


def _options(chassis: Path) -> set[str]:
    """Return how files and folders of options are called that the service has not chosen."""
    contract = json.loads((chassis.parent / "contract.json").read_text(encoding="utf-8"))
    every = {option for options in CHOICES.values() for option in options}
    chosen = {str(contract.get(choice)) for choice in CHOICES}
    return _as_named(every) - _as_named(chosen)


def _as_named(options: set[str]) -> set[str]:
    return options | {option.partition("-")[0] for option in options}


def differences(chassis: Path = CHASSIS) -> Iterator[str]:
    """Yield which files were changed, added or removed since the chassis was generated.

    Raises:
        OSError: there is no record of them, as in an installed wheel, or no contract beside it.
    """
    found, others = sums(chassis), _options(chassis)
    lines = (chassis / SUMS).read_text(encoding="utf-8").splitlines()
    known = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in sorted({*found, *known}):
        if name not in known:
            yield f"added: {name}"
        elif name not in found:
            if others.isdisjoint(re.split(r"[/._]", name)):
                yield f"removed: {name}"
        elif found[name] != known[name]:
            yield f"changed: {name}"


def main() -> int:
    """Show what differs; return 1 if anything does."""
    print(f"celery_aws {__version__}")
    found = list(differences())
    print("\n".join(found or ("No file differs from this version.",)))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
