"""The example of `examples/reports/`: generated, checked, and run by its own tests and by `make dev`."""

from __future__ import annotations

import contextlib
import os
import runpy
import shutil
import socket
import subprocess
import sys

import httpx
import pytest
from conftest import TEMPLATE, eventually, need, shared_broker, source_path
from test_projects import succeed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXAMPLE = TEMPLATE / "examples" / "reports"
generate = runpy.run_path(str(TEMPLATE / "tools" / "example.py"))["generate"]

SQS = {"broker": "sqs-standard", "results": "none"}
"""Answers other than the example's own."""


def run_tests(folder, answers, *tests):
    pytest_of_project = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    succeed(*pytest_of_project, *tests, cwd=folder, **shared_broker(answers))


def test_reports_when_generated_then_its_checks_and_tests_pass(tmp_path):
    need("redis-server")
    folder = generate("reports", tmp_path, {})
    for command in (("check",), ("format", "--check")):
        succeed(sys.executable, "-m", "ruff", *command, "--no-cache", ".", cwd=folder)
    succeed(sys.executable, "-m", "mypy", cwd=folder, PYTHONPATH=source_path(folder))
    if shutil.which("terraform"):
        succeed("terraform", "fmt", "-check", "-diff", "terraform", cwd=folder)
    run_tests(folder, {"broker": "rabbitmq"}, "tests/test_reports.py", "tests/test_conformance.py", "-k", "not queue")


def test_reports_when_generated_for_sqs_then_its_tests_pass(tmp_path):
    run_tests(generate("reports", tmp_path, SQS), SQS, "tests/test_reports.py")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def posted(port):
    """Request a report; return its id, or None if the API does not answer yet."""
    request = {"customer": "Ann", "from": "2026-01-01", "to": "2026-01-31"}
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.post(f"http://127.0.0.1:{port}/reports", json=request, headers={"Idempotency-Key": "1"})
        return answer.json()["id"]


def test_reports_when_run_by_make_dev_then_the_mail_is_printed(tmp_path):
    folder, log = generate("reports", tmp_path, SQS), tmp_path / "log"
    port, smtp_port = free_port(), free_port()
    variables = {"PORT": str(port), "SMTP_PORT": str(smtp_port), "SMTP_URL": f"smtp://127.0.0.1:{smtp_port}"}
    environment = {**os.environ, **variables, "PYTHONPATH": source_path(folder)}
    command = (sys.executable, "-m", "celery_aws.dev")
    with log.open("wb") as output, subprocess.Popen(command, cwd=folder, env=environment, stdout=output) as dev:
        try:
            report_id = eventually(lambda: posted(port), 60)
            mail = f"The report {report_id} is ready. It has 93 rows."
            assert report_id and eventually(lambda: mail in log.read_text(), 30), log.read_text()
        finally:
            dev.terminate()
    assert dev.returncode == 0, log.read_text()


def example(*arguments):
    """Run the command that `make example` runs."""
    command = (sys.executable, "tools/example.py", *map(str, arguments))
    return subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True)


def test_example_when_an_answer_is_wrong_then_is_refused_by_name(tmp_path):
    for answer in ("brokr=rabbitmq", "broker", "queues=high", "broker=kafka"):
        ran = example("reports", "--output-dir", tmp_path, "--no-lock", answer)
        assert (ran.returncode, answer.partition("=")[2] in ran.stderr) == (2, True), ran.stderr
        assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_example_when_its_folder_exists_then_is_refused(tmp_path):
    (tmp_path / "acme-reports").mkdir()
    ran = example("reports", "--output-dir", tmp_path, "--no-lock", "broker=sqs-standard", "results=s3")
    assert (ran.returncode, "already exists" in ran.stderr, "Traceback" in ran.stderr) == (2, True, False)


def test_example_when_a_line_to_edit_is_missing_then_raises(tmp_path):
    edit = runpy.run_path(str(TEMPLATE / "tools" / "example.py"))["edit"]
    file = tmp_path / "file"
    file.write_text("one\ntwo\ntwo\n", encoding="utf-8")
    edit(file, {"one": ["1", "one"]})
    assert file.read_text(encoding="utf-8") == "1\none\ntwo\ntwo\n"
    for line in ("two", "three"):
        with pytest.raises(ValueError, match=line):
            edit(file, {line: []})
