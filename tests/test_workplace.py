"""What people who work on a service find: its dev container, AGENTS.md and uv; and the branch to read one on."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import BIN, git, tree


def devcontainer_of(project):
    return json.loads((project / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))


def make_targets(project):
    makefile = (project / "chassis" / "make.mk").read_text(encoding="utf-8")
    return set(re.findall(r"^\.PHONY: ([\w-]+)$", makefile, re.MULTILINE))


@pytest.mark.parametrize("broker", ["sqs-standard", "rabbitmq"])
def test_devcontainer_when_opened_then_installs_what_make_needs(bake, broker):
    """The weekly workflow opens it; here, its parts are held to those of the service."""
    project = bake(broker=broker)
    opened = devcontainer_of(project)
    (python,) = set(re.findall(r"^FROM python:([\d.]+)-slim", (project / "Dockerfile").read_text(), re.MULTILINE))
    assert opened["image"] == f"python:{python}"
    *before, install = opened["postCreateCommand"].split(" && ")
    assert shlex.split(install)[1] in make_targets(project)
    assert any("rabbitmq-server" in command for command in before) == (broker == "rabbitmq")


def test_agents_when_commands_are_typed_then_they_exist(bake):
    project = bake()
    text = (project / "AGENTS.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    named = set(re.findall(r"`make ([a-z]+)`", text))
    assert {line[1] for line in lines if line[0] == "make"} | named <= make_targets(project)
    python = {".venv/bin/python": (sys.executable,), ".venv/bin/acme-jobs": (sys.executable, "-m", "acme_jobs")}
    others = [(*python[line[0]], *line[1:]) for line in lines if line[0] != "make"]
    assert others
    for command in others:
        environment = {**os.environ, "PYTHONPATH": "src:chassis", "PYTEST_ADDOPTS": "-p no:cacheprovider"}
        ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_install_when_made_then_wants_hashes_and_the_service(bake, installer):
    said = subprocess.run(
        ("make", f"PYTHON={sys.executable}", "--dry-run", "install", f"INSTALLER={installer}"),
        cwd=bake(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pinned, service = (line for line in said.splitlines() if " install " in line)
    assert ("uv pip install" in said) == (installer == "uv")
    assert "--require-hashes" in pinned
    assert "--editable ." in service


def test_uv_run_when_typed_then_uses_the_environment_as_it_is(project, run):
    folder = project()
    options = {"cwd": folder, "env": {"VIRTUAL_ENV": ""}}
    assert run(BIN / "uv", "venv", "--offline", "--python", sys.executable, ".venv", **options).returncode == 0
    # Nothing is installed into it, which would need the network.
    ran = run(BIN / "uv", "run", "--offline", "python", "-c", "import sys; print(sys.prefix)", **options)
    assert ran.stdout == f"{folder / '.venv'}\n", ran.stderr
    assert not (folder / "uv.lock").exists()


@pytest.mark.slow
def test_lock_when_made_then_writes_all_requirements_with_hashes(project, tmp_path):
    folder = project(broker="rabbitmq")
    ready = tmp_path / "venv" / ".ready"
    ready.parent.mkdir()
    (ready.parent / "bin").symlink_to(BIN)
    ready.touch()  # The environment of these tests stands in for the one that make would install.
    paths = sorted(folder.glob("requirements*.txt"))
    assert [path.stem for path in paths] == [f"requirements{of}" for of in ("-build", "-dev", "-flower", "")]
    for path in paths:
        path.write_text("".join(re.findall(r"^celery==.*$|^kombu==.*$", path.read_text(), re.MULTILINE)))
    subprocess.run(("make", f"VENV={ready.parent}", f"--old-file={ready}", "lock"), cwd=folder, check=True)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        pins = re.findall(r"^[\w.-]+==.*$", text, re.MULTILINE)
        assert pins
        assert all(pin.endswith("\\") for pin in pins), path
        assert "://" not in text


def test_showcase_when_the_template_changes_then_the_branch_follows(bake, repository, run, tmp_path):
    """On a clone without history, as a workflow has it."""
    origin, clone = tmp_path / "origin.git", tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(origin))
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{origin}", str(clone))
    git(clone, "config", "user.name", "Nobody")
    git(clone, "config", "user.email", "nobody@example.com")

    def show():
        shown = run(str(clone / "tools" / "showcase"), sys.executable, cwd=clone)
        assert shown.returncode == 0, shown.stdout + shown.stderr
        return git(origin, "log", "--format=%s", "example").splitlines()

    assert len(show()) == 1
    shown = git(origin, "ls-tree", "-r", "--name-only", "example").splitlines()
    assert sorted(shown) == sorted(f"acme-jobs/{name}" for name in tree(bake()))
    assert len(show()) == 1  # Nothing has changed.
    makefile = clone / "{{cookiecutter.project_slug}}" / "Makefile"
    makefile.write_text(makefile.read_text() + "# more\n")
    git(clone, "commit", "--all", "--quiet", "--message", "more")
    assert len(show()) == 2
    assert git(origin, "show", "example:acme-jobs/Makefile").endswith("# more\n")
