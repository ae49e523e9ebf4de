"""Terraform for tests: without AWS, and without the variables that lead the service to the emulator."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..dev import emulator

ROOT = emulator.PROJECT / "terraform"


def need() -> None:
    """Skip the test on a machine without Terraform; fail it in CI."""
    if shutil.which("terraform") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("terraform is missing; CI has to install it")
        pytest.skip("terraform is not installed on this machine")


def _process(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        ["terraform", f"-chdir={folder}", *arguments],
        env={**environment, "TF_IN_AUTOMATION": "true", "CHECKPOINT_DISABLE": "true"},
        capture_output=True,
        text=True,
    )


def run(*arguments: str, folder: Path = ROOT) -> str:
    """Run Terraform in a folder, and return its output; it must succeed."""
    process = _process(*arguments, folder=folder)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def initialize(folder: Path = ROOT) -> None:
    """Load the provider, and leave the state alone."""
    run("init", "-backend=false", "-input=false", "-no-color", folder=folder)


def reports(folder: Path = ROOT) -> list[dict[str, Any]]:
    """Run the tests of a folder, and return what Terraform reports, with their plans; they must pass."""
    process = _process("test", "-json", "-verbose", folder=folder)
    found = [json.loads(line) for line in process.stdout.splitlines()]
    assert process.returncode == 0, "\n".join(
        f"{report['@message']}\n{report.get('diagnostic', {}).get('detail', '')}"
        for report in found
        if report["@level"] == "error" or report["type"] == "test_run"
    )
    return found


@functools.cache
def planned() -> dict[str, Any]:
    """Return the plan of an environment that the tests in terraform/tests/ make, with a mock provider."""
    need()
    initialize()
    return next(dict(report["test_plan"]) for report in reports() if "test_plan" in report)
