"""Pins what generated projects install: `make lock` runs it.

A project with Redis results needs a few packages that others do not, so two projects are resolved
and what only the first needs is wrapped in a condition. The template's own requirements come last,
held to the same versions, because its tests run generated projects with its own interpreter.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).parents[1]
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
CONDITION = '{% if cookiecutter.results == "redis" %}'
COMPILE = (
    *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.10"),
    *("--generate-hashes", "--no-header", "--no-annotate"),
)


def compile_requirements(source: Path, target: Path, *options: str) -> None:
    """Resolve a file of requirements into one with exact versions and hashes."""
    command = [sys.executable, "-m", *COMPILE, str(source), *options, "--output-file", str(target)]
    subprocess.run(command, check=True, cwd=source.parent)


def blocks(requirements: str) -> dict[str, str]:
    """Split a file of requirements into its packages, by name and marker."""
    found = re.findall(r"^\S[^\\\n]*\\\n(?:    .*\n?)+", requirements, re.MULTILINE)
    return {block.split("\\")[0].strip(): block for block in found}


def conditional(with_redis: str, without: str) -> str:
    """Write both as one template."""
    common = blocks(without)
    written = []
    for key, block in blocks(with_redis).items():
        written.append(block if key in common else f"{CONDITION}{block.rstrip()}\n{{% endif %}}")
    missing = common.keys() - blocks(with_redis).keys()
    if missing:
        raise SystemExit(f"resolved differently without Redis: {', '.join(sorted(missing))}")
    return "".join(written).replace("{% endif %}" + CONDITION, "")


def main() -> None:
    """Write the requirements of projects, then those of the template."""
    with tempfile.TemporaryDirectory() as folder:
        baked = {
            results: Path(
                cookiecutter(
                    str(TEMPLATE),
                    no_input=True,
                    default_config=True,
                    extra_context={"project_slug": f"with-{results}", "results": results},
                    output_dir=folder,
                )
            )
            for results in ("redis", "none")
        }
        for name, options in (("requirements.txt", []), ("requirements-dev.txt", ["--extra", "dev"])):
            for project in baked.values():
                (project / name).unlink()
            compile_requirements(baked["redis"] / "pyproject.toml", baked["redis"] / name, *options)
            constraint = ("--constraint", str(baked["redis"] / name))
            compile_requirements(baked["none"] / "pyproject.toml", baked["none"] / name, *options, *constraint)
            texts = [baked[results].joinpath(name).read_text(encoding="utf-8") for results in ("redis", "none")]
            (PROJECT / name).write_text(conditional(*texts), encoding="utf-8")
        compile_requirements(
            TEMPLATE / "requirements.in",
            TEMPLATE / "requirements.txt",
            *("--constraint", str(baked["redis"] / "requirements-dev.txt")),
        )


if __name__ == "__main__":
    main()
