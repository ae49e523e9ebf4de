"""Builds the client of the service, a wheel for producers: `make client`.

The wheel has the contract, a typed function for each task, and the part of this library that sending needs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ... import service as services
from ...commands import Failure
from ...contract import Contract, ContractError, read
from ...errors import SettingsError
from ...testing.running import unreachable
from . import library, modules

PROJECT = Path.cwd()


def main() -> None:
    """Build the wheel."""
    parser = argparse.ArgumentParser(prog="python -m celery_aws.dev.client", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path("dist"), help="where to write it; default: %(default)s")
    arguments = parser.parse_args()
    contract = read(services.find_contract())
    for name, value in {**_example(), **unreachable(contract)}.items():
        os.environ.setdefault(name, value)
    services.use(contract.package)
    with tempfile.TemporaryDirectory() as folder:
        left_out = write(Path(folder), services.app(), _metadata())
        _hatchling("build", "--target", "wheel", "--directory", folder, cwd=Path(folder))
        (wheel,) = Path(folder).glob("*.whl")
        arguments.directory.mkdir(parents=True, exist_ok=True)
        print(shutil.copy(wheel, arguments.directory))
    for line in left_out:
        print(f"not in the client: {line}")


def write(folder: Path, app: Any, metadata: dict[str, Any]) -> list[str]:
    """Write the project of a client into a folder.

    Args:
        folder: an empty folder.
        app: the application of the service.
        metadata: metadata of the service's own wheel.

    Returns:
        A line for each task that cannot be sent by a client.

    Raises:
        Failure: names of tasks or queues collide.
    """
    package = f"{app.contract.package}_client"
    target = folder / package
    files, left_out = modules.texts(app, metadata["version"])
    paths, outside = library.parts(app.contract)
    library.copy(paths, target / modules.LIBRARY)
    for name, text in files.items():
        compile(text, name, "exec")
        (target / name).write_text(text, encoding="utf-8")
    shutil.copyfile(services.find_contract(), target / "contract.json")
    (target / "py.typed").touch()
    (folder / "pyproject.toml").write_text(_pyproject(app.contract, package, metadata, outside))
    return left_out


def _pyproject(contract: Contract, package: str, metadata: dict[str, Any], outside: Collection[str]) -> str:
    """Return the pyproject.toml of a client, which requires what its part of this library imports."""
    names = {each: re.split(r"[^\w.-]", each)[0].replace("-", "_") for each in metadata["dependencies"]}
    traces = metadata["optional-dependencies"]["tracing"] if contract.tracing else ()
    project = {
        "name": f"{contract.service}-client",
        "version": metadata["version"],
        "description": f"Client of the service {contract.service}",
        "requires-python": metadata["requires-python"],
        "dependencies": [*(each for each, name in names.items() if name in outside), *traces],
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in project.items()]
    build = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    wheel = f'[tool.hatch.build.targets.wheel]\npackages = ["{package}"]\n'
    return "\n".join((build, "[project]", *lines, "", wheel))


def _metadata() -> dict[str, Any]:
    """Return the metadata of the service's own wheel, from its pyproject.toml."""
    found: dict[str, Any] = json.loads(_hatchling("metadata", cwd=PROJECT))
    return found


def _hatchling(*arguments: str, cwd: Path) -> str:
    """Run hatchling, which builds the service's own wheel as well, and return its output.

    Raises:
        Failure: it failed.
    """
    ran = subprocess.run([sys.executable, "-m", "hatchling", *arguments], cwd=cwd, capture_output=True, text=True)
    if ran.returncode:
        raise Failure(f"hatchling {arguments[0]} failed: {ran.stderr.strip()}")
    return ran.stdout


def _example() -> dict[str, str]:
    """Return the environment variables of `.env.example`: tasks are imported, and they may read some."""
    example = PROJECT / ".env.example"
    text = example.read_text(encoding="utf-8") if example.exists() else ""
    return dict(re.findall(r"^([A-Z_0-9]+)=(.*)$", text, re.MULTILINE))


if __name__ == "__main__":
    try:
        main()
    except (ContractError, Failure, SettingsError) as error:
        sys.exit(str(error))
