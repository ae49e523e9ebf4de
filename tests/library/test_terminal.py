"""Whatever is typed, or surrounds a command, ends in words and exit code 2, and in no traceback."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from library.commands import COMMAND
from library.support import BROKER, PATH, contract, module

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


def run(*arguments, stdout=subprocess.PIPE, cwd=None, **variables):
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **PATH, **variables},
        cwd=cwd,
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


COMMANDS = ["metrics"] if BROKER == "rabbitmq" else ["metrics", "send examples.count_words x --group g"]


@pytest.mark.parametrize("line", COMMANDS)
def test_emulator_that_has_ended_is_an_error_that_names_the_file_of_variables(line):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    ran = run(*line.split(), AWS_ENDPOINT_URL=address)
    assert ran.returncode == 2
    assert address in ran.stderr
    assert ".env.development" in ran.stderr


@pytest.mark.parametrize(("typed", "meant"), [("queue", "queues"), ("sned", "send"), ("metric", "metrics")])
def test_command_when_misspelled_then_suggests_the_right_one(typed, meant):
    ran = CliRunner().invoke(main, [typed])
    assert ran.exit_code == 2
    assert repr(meant) in ran.output


def test_environment_when_missing_then_variable_is_named():
    ran = CliRunner(env={"ENVIRONMENT": ""}).invoke(main, ["queues"])
    assert ran.exit_code == 2
    assert "ENVIRONMENT" in ran.output


@pytest.mark.parametrize("line", ["queues", "dlq list high", "send any.task"])
def test_environment_when_missing_while_make_dev_runs_then_its_file_is_named(line, tmp_path):
    def said():
        ran = run(*line.split(), cwd=tmp_path, ENVIRONMENT="")
        assert ran.returncode == 2
        return ran.stderr

    assert ".env.development" not in said()
    (tmp_path / ".env.development").touch()
    assert ". ./.env.development" in said()


@pytest.mark.parametrize(("code", "why"), [("import not_there", "not_there"), ("x = (1", "never closed")])
@pytest.mark.parametrize("name", ["celery.py", "tasks/high.py"])
def test_module_that_cannot_be_imported_is_named_in_one_line(name, code, why, tmp_path):
    package = tmp_path / "broken"
    (package / "tasks").mkdir(parents=True)
    (package / "celery.py").write_text("import broken.tasks.high\n")
    (package / name).write_text(f"\n{code}\n")
    command = "import sys\nfrom celery_aws import run_command\nsys.argv[1:] = ['send', 'x']\nrun_command('broken')"
    path = {**PATH, "PYTHONPATH": os.pathsep.join((str(tmp_path), PATH["PYTHONPATH"]))}
    ran = subprocess.run(
        (sys.executable, "-c", command),
        env={**os.environ, **path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert f"broken/{name}, line 2: " in line
    assert why in line


def test_contract_when_the_window_is_narrow_then_no_name_and_no_row_is_wrapped():
    printed = run("contract", COLUMNS="40").stdout.splitlines()
    for queue in json.loads(run("contract", "--json").stdout)["queues"]:
        assert any({queue["queue_name"], queue["dead_letter_queue_name"]} <= set(re.split("[ ,]", x)) for x in printed)
    values = [line.split()[1:] for line in printed if line.startswith("hard_limit_seconds ")]
    assert values == [[str(queue.hard_limit_seconds) for queue in contract.queues]]


@pytest.mark.parametrize("width", [24, 30, 36, 45, 80])
def test_table_when_the_window_is_narrow_then_no_name_and_no_figure_is_cut(width):
    terminal = module("terminal")
    table = terminal.table(title="[bold]now")
    table.add_column("QUEUE", overflow="fold")
    for heading in ("WAITING", "IN FLIGHT", "WORKERS", "DEAD"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("default", "3,021", "1,234,567", "[red]12[/]", "0")
    with (to := Console(width=width)).capture() as captured:
        to.print(terminal.Fitting(table))
    lines = captured.get().splitlines()
    assert {"default", "3,021", "1,234,567", "12", "QUEUE", "now"} <= {word for line in lines for word in line.split()}
    assert all(len(line.rstrip()) <= width for line in lines)


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
