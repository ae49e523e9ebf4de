"""`send --wait` while the result backend fails: the task was sent, and one line says what failed."""

from __future__ import annotations

import pytest

from library.commands import Commands
from library.support import CONTRACT, HAS_RESULTS

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not HAS_RESULTS, reason="there is no result backend"),
]

NOWHERE = "http://127.0.0.1:9"
FAULTS = {
    "s3": [
        ({"RESULTS_BUCKET": "nosuch"}, "bucket nosuch", "NoSuchBucket"),
        ({"AWS_ENDPOINT_URL_S3": NOWHERE}, "bucket ", NOWHERE),
    ],
    "dynamodb": [
        ({"RESULTS_TABLE": "nosuch"}, "table nosuch", "ResourceNotFoundException"),
        ({"AWS_ENDPOINT_URL_DYNAMODB": NOWHERE}, "table ", NOWHERE),
    ],
    "redis": [({"RESULTS_URL": "redis://127.0.0.1:9/0"}, "Redis ", "127.0.0.1:9")],
}
"""Environment variables by result backend, what the error names, and why."""


@pytest.mark.parametrize(("variables", "place", "why"), FAULTS.get(CONTRACT["results"], []))
def test_send_when_the_result_backend_fails_then_says_so(quiet, variables, place, why):
    commands = Commands(quiet)
    task = f"{quiet.queue.module}.measure"
    sent = commands.run("send", task, "x", "--group=g", "--wait=3", status=2, **variables)
    assert len(sent.split()) == 1  # The id of the task.
    (line,) = (line for line in commands.errors.splitlines() if line.startswith("Error: "))
    assert f"its result cannot be read from {place}" in line
    assert why in line
    assert len(commands.errors.splitlines()) == 1, commands.errors


def test_send_when_there_is_no_result_yet_then_says_so(quiet):
    commands = Commands(quiet)
    commands.run("send", f"{quiet.queue.module}.measure", "x", "--group=g", "--wait=1", status=2)
    assert commands.errors.startswith("Error: no result after 1 ")
