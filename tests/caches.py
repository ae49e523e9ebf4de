"""What the processes that tests start keep for each other."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

FOLDER = Path(tempfile.gettempdir()) / "celery-aws-caches"
"""Not beside the sources: what is left in the template would be baked."""


def share() -> None:
    """Have this process and those that it starts compile each module once, even where Python is told not to keep that.

    Otherwise each of them compiles whatever it imports, which takes several times as long as the import. What mypy
    learns of the libraries serves all projects as well.
    """
    bytecode, temporary = FOLDER / "bytecode", Path(tempfile.gettempdir()).resolve()
    if os.environ.get("PYTHONPYCACHEPREFIX") != str(bytecode):  # Those that this process starts have it.
        # The copies that tests make of projects and of the library are gone then.
        atexit.register(shutil.rmtree, bytecode / temporary.relative_to(temporary.anchor), ignore_errors=True)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(bytecode)
    os.environ["MYPY_CACHE_DIR"] = str(FOLDER / "mypy")
    # Terraform and its provider collect garbage less often, in 1 GB: a fifth of their CPU time otherwise.
    os.environ.setdefault("GOGC", "400")
