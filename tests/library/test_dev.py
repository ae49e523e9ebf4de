"""`make dev`, run as a whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from celery import platforms

from celery_aws.dev import emulator
from library.support import CONTRACT, PROJECT, contract, eventually, module

dev = module("dev.__main__")
READY = "All workers are ready."


@pytest.fixture
def folder(tmp_path):
    """Return a copy of the service that a test may change."""
    return shutil.copytree(PROJECT, tmp_path / "service", ignore=shutil.ignore_patterns("chassis", ".*"))


@contextlib.contextmanager
def running(folder, output):
    """Run `make dev` in a folder, and yield its process."""
    path = os.pathsep.join((str(folder / "src"), emulator.import_path()))
    own = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "CONTRACT_FILE": str(folder / "contract.json")}
    environment = {**os.environ, **own}
    command = [sys.executable, "-m", "celery_aws.dev"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@pytest.mark.timeout(300)
def test_dev_when_files_change_then_restarts_unless_they_are_wrong(folder, tmp_path):
    """A failing start, a syntax error and a broken contract do not end it."""
    log = tmp_path / "log"
    source = folder / "src" / CONTRACT["package"] / "tasks" / f"{contract.queues[0].module}.py"
    before, worker = source.read_text(encoding="utf-8"), contract.workers[0].name

    def says(text, times=1):
        assert eventually(lambda: log.read_text().count(text) >= times, 60), log.read_text()

    with log.open("wb") as output, running(folder, output) as process:
        says(READY)
        source.with_name("nope.py").write_text("", encoding="utf-8")
        says("tasks/nope.py belongs to no queue")
        source.with_name("nope.py").unlink()
        source.write_text(before + "def broken(:\n", encoding="utf-8")
        says(f"{source.name}, line {before.count(chr(10)) + 1}: ")
        source.write_text(before + "open('gone')\n", encoding="utf-8")
        says("FileNotFoundError: ")
        says(f"{worker} ended with status 1")
        begun = log.read_text().count(f"{worker}@")
        source.write_text(before, encoding="utf-8")
        says(f"{worker}@", begun + 1)
        (folder / "contract.json").write_text(json.dumps({**CONTRACT, "region": "mars"}), encoding="utf-8")
        says("region must look like")
        queues = [*CONTRACT["queues"], {**CONTRACT["queues"][0], "name": "added"}]
        (folder / "contract.json").write_text(json.dumps({**CONTRACT, "queues": queues}), encoding="utf-8")
        says("added@")
        says(READY, 2)
        source.write_text(before + "import os\nOWN = os.environ['OWN']\n", encoding="utf-8")
        says("KeyError: 'OWN'")
        (folder / "development.env").write_text("# Ours\nOWN=$a b\n", encoding="utf-8")
        says("development.env changed")
        says(READY, 3)
        assert "export OWN='$a b'\n" in (folder / ".env.development").read_text(encoding="utf-8")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    assert not (folder / ".env.development").exists()


def test_dev_when_nobody_reads_its_output_then_ends(folder):
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as output, running(folder, output) as process:
        assert os.read(reader, 1)
        os.close(reader)
        assert process.wait(60) == 1
    assert not (folder / ".env.development").exists()


def descendants(process_id):
    """Return the command lines of the descendants of a process, by process id."""
    listed = subprocess.run(["ps", "-Ao", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 2) for line in listed.splitlines()]
    found, parents = {}, {process_id}
    while parents:
        children = {int(own): command for own, parent, command in lines if int(parent) in parents}
        found |= children
        parents = set(children)
    return found


VICTIMS = [("celery_aws.dev.emulator", "the emulator")]
if CONTRACT["results"] == "redis" and shutil.which("redis-server"):
    VICTIMS.append(("redis-server", "redis-server"))
if CONTRACT["broker"] == "rabbitmq":
    VICTIMS.append(("beam.smp", "RabbitMQ"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("command", "name"), VICTIMS)
def test_dev_when_the_emulator_or_a_server_of_it_dies_then_ends(folder, tmp_path, monkeypatch, command, name):
    if name == "RabbitMQ":
        monkeypatch.delenv("RABBITMQ_RUNNING", raising=False)  # That one is of all tests.
    log = tmp_path / "log"
    with log.open("wb") as output, running(folder, output) as process:
        assert eventually(lambda: READY in log.read_text(), 120), log.read_text()
        victim = next(own for own, line in descendants(process.pid).items() if command in line)
        os.kill(victim, signal.SIGKILL)
        assert process.wait(90) == 1, log.read_text()
    said = [line for line in log.read_text().splitlines() if "(dev)" in line]  # Others may end with it.
    assert any(f"{name} ended with status " in line for line in said)
    assert not (folder / ".env.development").exists()


@pytest.mark.parametrize("is_dev", [True, False])
def test_superuser_when_a_worker_of_dev_runs_then_is_not_warned(is_dev):
    text = platforms.ROOT_DISCOURAGED.format(uid=0, euid=0, gid=0, egid=0)
    code = f"import warnings; from celery import platforms; warnings.warn(platforms.SecurityWarning({text!r}))"
    environment = dev.process_environment({}) if is_dev else os.environ
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ("superuser" in ran.stderr) == (not is_dev)
