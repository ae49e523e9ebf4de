"""Installs what the peers need, once, below the user's cache: never into the environment of this process."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("JUDGES") or Path.home() / ".cache" / "cookiecutter-celery-aws").absolute() / "peers"
MARKER = "installed"
"""The file of pins, copied when everything in it is installed."""
TIMEOUT_SECONDS = 600


class NotHereError(Exception):
    """A peer cannot run on this machine; the message says why."""


def python() -> Path:
    """Return a Python that has the peers of requirements.txt.

    Raises:
        NotHereError: they cannot be installed.
    """
    folder = FOLDER / "python"
    program = folder / "bin" / "python"
    pinned = HERE / "requirements.txt"
    if not _is_installed(pinned, folder):
        _announce(pinned)
        _run(sys.executable, "-m", "venv", str(folder))
        pip = (str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(*pip, "--require-hashes", "--requirement", str(pinned))
        shutil.copy(pinned, folder / MARKER)
    return program


def node_modules() -> Path:
    """Return the folder with the peers of package.json.

    Raises:
        NotHereError: there is no Node, or they cannot be installed.
    """
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise NotHereError(f"{program} is not installed")
    folder = FOLDER / "node"
    pinned = HERE / "package.json"
    if not _is_installed(pinned, folder):
        _announce(pinned)
        try:
            folder.mkdir(parents=True)
            shutil.copy(pinned, folder)
        except OSError as problem:
            raise NotHereError(f"its folder cannot be written: {problem.strerror}") from problem
        _run("npm", "install", "--prefix", str(folder), "--no-package-lock", "--no-audit", "--no-fund")
        shutil.copy(pinned, folder / MARKER)
    return folder / "node_modules"


def _announce(pinned: Path) -> None:
    print(f"installing the peers of {pinned.name}: some minutes without a network", file=sys.stderr, flush=True)


def _is_installed(pinned: Path, folder: Path) -> bool:
    """Tell whether a folder has what is pinned; remove it if it does not."""
    kept = folder / MARKER
    if kept.exists() and filecmp.cmp(pinned, kept, shallow=False):
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as problem:
        print(f"{problem}\n{getattr(problem, 'stderr', '')}", file=sys.stderr)
        raise NotHereError("its installation failed") from problem
