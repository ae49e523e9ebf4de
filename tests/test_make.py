"""What `make` says in a project where something has not been done yet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def new_project(bake, tmp_path):
    """Return a project as it was generated, under git and without a commit."""
    folder = shutil.copytree(bake(), tmp_path / "service")
    subprocess.run(("git", "init", "--quiet"), cwd=folder, check=True)
    return folder


def make(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "MAKE", "VENV"))}
    return subprocess.run(
        ("make", f"PYTHON={sys.executable}", *arguments), cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("target", ["plan", "deployed", "pipeline"])
def test_terraform_when_there_is_no_bucket_then_bootstrap_is_named(new_project, target):
    ran = make(new_project, target, "ENV=production", "TERRAFORM_CLI=echo")
    assert ran.returncode != 0
    assert "make bootstrap ENV=production" in ran.stderr
    assert ran.stdout == ""
    (new_project / "terraform" / "environments" / "production.s3.tfbackend").touch()
    assert "make bootstrap" not in make(new_project, target, "ENV=production", "TERRAFORM_CLI=echo").stderr


@pytest.mark.parametrize("target", ["push", "deploy"])
def test_image_when_there_is_no_commit_then_one_is_asked_for(new_project, target):
    ran = make(new_project, target)
    assert ran.returncode != 0
    assert "commit" in ran.stderr
    assert "fatal" not in ran.stderr


def test_install_when_it_begins_then_says_how_long_it_takes(new_project):
    (new_project / ".venv").mkdir()
    ran = make(new_project, "install", "PYTHON=true", "INSTALL_pip=true")
    assert ran.returncode == 0, ran.stderr
    first, *rest = ran.stdout.splitlines()
    assert ".venv: about a minute" in first
    assert len(rest) == 3
    assert make(new_project, "install", "PYTHON=true").stdout.count("minute") == 0


@pytest.mark.parametrize("tracing", [True, False])
def test_lock_when_the_contract_has_tracing_then_pins_its_extra(new_project, tracing):
    path = new_project / "contract.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "tracing": tracing}), encoding="utf-8")
    lines = make(new_project, "--dry-run", "lock").stdout.splitlines()
    pinned = [line for line in lines if "--output-file requirements.txt" in line or "--extra dev" in line]
    assert ["--extra tracing" in line for line in pinned] == [tracing, tracing]


def test_format_when_a_finding_cannot_be_fixed_then_formats_and_fails(new_project, tmp_path):
    """The finding is an undefined name."""
    ready = tmp_path / "venv" / ".ready"
    ready.parent.mkdir()
    (ready.parent / "bin").symlink_to(Path(sys.executable).parent)
    ready.touch()  # The environment of these tests stands in for the one that make would install.
    arguments = ("format", f"VENV={ready.parent}", f"--old-file={ready}")
    (new_project / "src" / "wrong.py").write_text("import os\nx = {  'a':unknown }\n", encoding="utf-8")
    ran = make(new_project, *arguments)
    assert ran.returncode != 0
    assert "F821" in ran.stdout
    assert (new_project / "src" / "wrong.py").read_text(encoding="utf-8") == 'x = {"a": unknown}\n'
    (new_project / "src" / "wrong.py").unlink()
    assert make(new_project, *arguments).returncode == 0
