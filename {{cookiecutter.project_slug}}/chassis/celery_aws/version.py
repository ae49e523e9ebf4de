"""The version of this library. As a command, lists the files of the chassis that differ from it."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from .contract import CHOICES, OPTION_NAMES, names_of

HERE = Path(__file__).parent
CHASSIS = HERE.parent
SUMS = "SHA256SUMS"
"""Checksums of all files of this version, including unused options; written when a project is generated."""
_INSTALLED = HERE / "VERSION"
"""The version file in a wheel; in a checkout it is in the parent folder."""

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
    """Write the checksums of a chassis."""
    lines = (f"{digest}  {name}\n" for name, digest in sums(chassis).items())
    (chassis / SUMS).write_bytes("".join(lines).encode())


def _unused_options(chassis: Path) -> frozenset[str]:
    """Return the names of files and folders of options that the service does not use."""
    contract = json.loads((chassis.parent / "contract.json").read_text(encoding="utf-8"))
    return OPTION_NAMES - {name for choice in CHOICES for name in names_of(str(contract.get(choice)))}


def differences(chassis: Path = CHASSIS) -> Iterator[str]:
    """Yield the files that were changed, added or removed since the chassis was generated.

    Raises:
        OSError: the checksums or the contract are missing, as in an installed wheel.
    """
    found, others = sums(chassis), _unused_options(chassis)
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
    """Print the differences; return 1 if there are any."""
    print(f"celery_aws {__version__}")
    found = list(differences())
    print("\n".join(found or ("All files match this version.",)))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
