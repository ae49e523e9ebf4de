"""The owner's own processes in `make dev`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from celery_aws.dev import emulator, procfile
from library.support import contract, eventually

OWN = """\
# Comments and empty lines are allowed.

web: echo pid=$$ region=$AWS_DEFAULT_REGION; python -c 'import sys; print("python", sys.executable)'; sleep 60; true
"""


@pytest.fixture
def write(tmp_path):
    """Write a Procfile, and return its path."""

    def written(text):
        path = tmp_path / "Procfile"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_procfile_when_there_is_none_then_has_no_commands(tmp_path):
    assert procfile.read(tmp_path / "Procfile", taken=()) == {}


def test_procfile_when_read_then_has_commands_by_name(write):
    path = write("# a comment\n\nweb: A=1 run --port 8000 # fast\nmail-2:run\n")
    assert procfile.read(path, taken=("high",)) == {"web": "A=1 run --port 8000 # fast", "mail-2": "run"}


@pytest.mark.parametrize(
    ("text", "line"),
    [("high: run\n", 1), ("web: run\nweb: walk\n", 2), ("web: run\n\nno command\n", 3), ("web:\n", 1)],
)
def test_procfile_when_a_line_cannot_be_run_then_is_refused(write, text, line):
    with pytest.raises(procfile.ProcfileError, match=f"line {line}:"):
        procfile.read(write(text), taken=("high",))


@pytest.fixture
def dev(tmp_path):
    """Run `make dev` with a Procfile; return its process and a function that returns its output."""
    path, log, started = emulator.PROJECT / "Procfile", tmp_path / "log", []

    def start(text):
        path.write_text(text, encoding="utf-8")
        with log.open("wb") as output:
            command = [sys.executable, "-m", "celery_aws.dev"]
            environment = {**os.environ, "PYTHONPATH": emulator.import_path(), "PATH": "/usr/bin:/bin"}
            started.append(subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT))
        return started[0], log.read_text

    yield start
    path.unlink()
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def is_running(pid):
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_dev_when_there_is_a_procfile_then_runs_and_stops_it(dev):
    process, log = dev(OWN)
    assert eventually(lambda: f"python {sys.executable}" in log()), log()
    assert f"region={contract.region}" in log()
    console, web = re.search(r"(http://127\.0\.0\.1:[0-9]+)/\?token=\S+", log()), re.search(r"pid=([0-9]+)", log())
    assert console.start() < web.start()
    pid = int(web[1])
    assert is_running(pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, log()
    assert eventually(lambda: not is_running(pid)), log()  # Until the last of them is reaped.
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(console[1], timeout=5)


def test_dev_when_a_name_is_taken_then_says_so_and_does_not_start(dev):
    name = contract.workers[0].name
    process, log = dev(f"{name}: sleep 60\n")
    assert process.wait(30) == 1
    assert log() == f"Procfile, line 1: {name!r} is the name of a worker of contract.json; choose another name\n"
