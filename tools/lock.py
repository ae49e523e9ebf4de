"""Pins what generated projects install: `make lock` runs it.

A project with Redis results needs a few packages that others do not, so two projects are resolved,
and each result option gets its file of requirements. A third tells what Flower needs. The template's
own requirements follow, held to the same versions, because its tests run generated projects with
its own interpreter. LocalStack's and those of the benchmarks' peers have nothing in common with them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).parents[1]
TESTS = TEMPLATE / "tests"
PEERS = TEMPLATE / "benchmarks" / "peers"
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
RESULTS = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))["results"]
COMPILE = (
    *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.10"),
    *("--upgrade", "--generate-hashes", "--no-header", "--no-annotate"),
)


def compile_requirements(*what: str, folder: Path, target: Path) -> None:
    """Resolve what is asked for in a folder into a file with exact versions and hashes."""
    command = [sys.executable, "-m", *COMPILE, *what, "--output-file", str(target)]
    subprocess.run(command, check=True, cwd=folder)


def bake(results: str, folder: Path, broker: str = "sqs-standard") -> Path:
    """Bake a project with these results and this broker, and no requirements yet."""
    project = Path(
        cookiecutter(
            str(TEMPLATE),
            no_input=True,
            default_config=True,
            extra_context={"project_slug": f"{broker}-{results}", "results": results, "broker": broker},
            output_dir=str(folder),
        )
    )
    for pinned in project.glob("requirements*.txt"):
        pinned.unlink()
    pyproject = project / "pyproject.toml"  # uv reads no groups of an unmanaged project.
    pyproject.write_text(pyproject.read_text(encoding="utf-8").replace("managed = false\n", ""), encoding="utf-8")
    return project


def main() -> None:
    """Write the requirements of projects, then those of the template."""
    with tempfile.TemporaryDirectory() as name:
        redis, other = bake("redis", Path(name)), bake("none", Path(name))
        compile_requirements("--group", "build", folder=other, target=PROJECT / "requirements-build.txt")
        for stem, options in (("requirements", ()), ("requirements-dev", ("--extra", "dev"))):
            pinned = redis / f"{stem}.txt"
            compile_requirements("pyproject.toml", *options, folder=redis, target=pinned)
            # Every version the same, or the two kinds of project would drift apart.
            same = ("--constraint", str(pinned))
            compile_requirements("pyproject.toml", *options, *same, folder=other, target=other / pinned.name)
            for results in RESULTS:
                chosen = redis if results == "redis" else other
                text = (chosen / pinned.name).read_text(encoding="utf-8")
                (PROJECT / f"{stem}.{results}.txt").write_text(text, encoding="utf-8")
        rabbitmq = bake("none", Path(name), "rabbitmq")
        same = ("--constraint", str(redis / "requirements.txt"))
        flower = PROJECT / "requirements-flower.rabbitmq.txt"
        compile_requirements("--group", "flower", *same, folder=rabbitmq, target=flower)
        both = ("--constraint", str(redis / "requirements-dev.txt"), "--constraint", str(flower))
        compile_requirements("requirements.in", *both, folder=TEMPLATE, target=TEMPLATE / "requirements.txt")
    compile_requirements("localstack.in", folder=TESTS, target=TESTS / "localstack.txt")
    compile_requirements("requirements.in", folder=PEERS, target=PEERS / "requirements.txt")


if __name__ == "__main__":
    main()
