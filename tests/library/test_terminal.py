"""Whatever is typed, or surrounds a command, ends in words and exit code 2, and in no traceback."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from library.commands import COMMAND
from library.support import PATH, module

main = module("cli").main


@pytest.mark.parametrize(
    "line",
    [
        "metrics --hours nan",
        "metrics --hours inf",
        "queues --watch --every nan",
        "cost --deliveries nan",
        f"cost --tasks-per-month 1{'0' * 400}",
        "send any.task --countdown nan",
        "send any.task --countdown -1",
        "send any.task --wait inf",
    ],
    ids=lambda line: line[:30],
)
def test_what_is_no_number_is_refused(line):
    ran = CliRunner().invoke(main, line.split())
    assert ran.exit_code == 2, ran.output
    assert f"Invalid value for '{next(word for word in line.split()[::-1] if word.startswith('--'))}'" in ran.output


def run(*arguments, stdout=subprocess.PIPE, **variables):
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **PATH, **variables},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )


def test_an_endpoint_that_is_none_is_an_error_without_a_traceback():
    ran = run("metrics", AWS_ENDPOINT_URL="nonsense")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "check AWS_ENDPOINT_URL" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("json", [(), ("--json",)])
def test_a_full_disk_is_an_error_without_a_traceback(json):
    with Path("/dev/full").open("w") as full:
        ran = run("cost", *json, stdout=full)
    assert ran.returncode == 2
    assert "No space left on device" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_whoever_has_read_enough_is_told_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        ran = run("cost", "--json", stdout=closed)
    assert (ran.returncode, ran.stderr) == (1, "")
