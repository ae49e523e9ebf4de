"""The conformance tests of a generated project can fail: each thing that they hold together, taken apart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import need, source_path

SERVICE = "chassis/terraform/service"


def append(file, text):
    """Return what adds lines to the end of a file of a project, which may not exist yet."""

    def change(project):
        with (project / file).open("a", encoding="utf-8") as opened:
            opened.write(text)

    return change


def replace(file, old, new):
    """Return what replaces a text, of which there is one, in a file of a project."""

    def change(project):
        text = (project / file).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (project / file).write_text(text.replace(old, new), encoding="utf-8")

    return change


def add_a_queue(project):
    """Add a queue to the contract, and to nothing that copies it."""
    contract = json.loads((project / "contract.json").read_text(encoding="utf-8"))
    contract["queues"].append({"name": "another"})
    (project / "contract.json").write_text(json.dumps(contract), encoding="utf-8")


def rename_workers(project):
    """Let Terraform run something else under the name of each queue."""
    for path in (project / SERVICE).glob("*.tf"):
        text = re.sub(r'(aws_ecs_service)(\.|" ")worker', r"\1\2other", path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")


PACKAGE = "src/acme_jobs"
BROKEN = {
    "test_code_when_it_uses_the_chassis_then_by_public_names": [
        (append(f"{PACKAGE}/settings.py", "\nfrom celery_aws.sending import Service\n"), "sending.Service"),
        (append(f"{PACKAGE}/settings.py", "\nimport celery_aws.sending\n"), "settings.py: sending"),
        (append(f"{PACKAGE}/settings.py", "\nprint(celery_aws.sending)\n"), "settings.py: sending"),
        (append(f"{PACKAGE}/examples.py", "\nimport celery_aws as chassis\n"), "as chassis"),
    ],
    "test_copies_of_the_contract_are_current": [(add_a_queue, "make compose.yaml")],
    "test_environment_variables_are_in_the_example": [
        (append(f"{PACKAGE}/settings.py", '\n    orders: str = ""\n'), "['ORDERS']"),
    ],
    "test_modules_of_tasks_are_those_of_queues": [
        (append(f"{PACKAGE}/tasks/hihg.py", '"""Mistyped."""\n'), "tasks/hihg.py belongs to no queue of contract.json")
    ],
    "test_terraform_is_formatted": [(append("terraform/main.tf", "locals {\na=1\n}\n"), "main.tf")],
    "test_terraform_creates_each_queue_with_its_alarms": [
        (
            replace(f"{SERVICE}/metrics_sqs.tf", "= queue.dead_letter_name", "= queue.queue_name"),
            "{'acme-jobs-staging-only-dlq'}",
        )
    ],
    "test_terraform_gives_workers_the_variables_they_read": [
        (append(f"{PACKAGE}/settings.py", "\n    orders: str\n"), "['ORDERS']"),
    ],
    "test_terraform_runs_workers_of_each_queue": [(rename_workers, "assert 0 == 1")],
}
"""What breaks, and what is then said of it, by the test that has to find it."""


@pytest.mark.parametrize(
    ("test", "change", "says"),
    [pytest.param(test, *broken, id=f"{test}-{n}") for test in BROKEN for n, broken in enumerate(BROKEN[test])],
)
def test_conformance_when_broken_then_fails_and_says_what(project, test, change, says):
    if "terraform" in test:
        need("terraform")
    folder = project(queues="only")
    change(folder)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/test_conformance.py::{test}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source_path(folder), "ORDERS": "set"},
        capture_output=True,
        text=True,
    )
    # 1: the test failed; anything else is no test, or one that could not run.
    assert run.returncode == 1, run.stdout + run.stderr
    assert " error" not in run.stdout.splitlines()[-1]
    assert says in run.stdout
