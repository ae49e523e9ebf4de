"""The library's own tests, from tests/library/: all with each broker, and what knows of results with each backend.

Each runs where the library lies, on a service that is baked for it; see tests/library/conftest.py.
"""

from __future__ import annotations

import re

import pytest
from conftest import CHOICES, TEMPLATE, library_tests, need
from module_tests import words

# Whole test suites run in here; what hangs is told by their own timeouts.
pytestmark = pytest.mark.timeout(1800)

LIBRARY = TEMPLATE / "tests" / "library"

SERVICES = {
    "sqs-standard": {"broker": "sqs-standard", "results": "s3"},
    "sqs-fifo": {"broker": "sqs-fifo", "results": "dynamodb", "credentials": "keys"},
    "rabbitmq": {"broker": "rabbitmq", "results": "redis", "compute": "ec2", "queues": "urgent-mail+bulk"},
    "no results": {"broker": "sqs-standard", "results": "none", "compute": "ec2", "queues": "only"},
}
"""One for each broker, and together every option; in one of them a worker serves two queues."""

ALONE = ("outages", "faults", "dlq", "outcomes", "main_process", "stopping", "liveness", "operations", "terraform")
ALONE += (
    "batching",
    "browser",
    "client",
    "console",
    "coroutines",
    "dev",
    "django",
    "doctor",
    "exports",
    "failures",
    "flower",
    "machine",
)
ALONE += (
    "order_in_groups",
    "other_languages",
    "outbox",
    "pausing",
    "priority",
    "remote_control",
    "sentry",
    "storm",
    "topology",
    "tracing",
    "web_pages",
)
"""Modules that take long, the longest first, each of which is a test here; all others are one together."""

ON_FIFO = ("outages", "outcomes")
"""Those of them that run on FIFO queues too, beside what knows of these: with them the service keeps other results."""

ONCE = ("coroutines", "sentry")
"""Those of them that no broker changes, and that run with the first service alone."""

ELSEWHERE = ("cluster",)
"""Those that test_judges.py runs."""

WITHOUT_RESULTS = ("aio", "contract", "end_to_end", "failures", "outcomes", "plugin", "sending", "web_pages")
"""Those that know of results, and that run where a service keeps none."""


def modules(answers):
    """Return the modules of tests that a service has, by their paths."""
    chosen = words([answers.get(choice, options[0]) for choice, options in CHOICES.items()])
    folders = [LIBRARY, *(LIBRARY / word for word in sorted(chosen))]
    return [path for folder in folders for path in sorted(folder.glob("test_*.py"))]


def name(path):
    return path.stem.removeprefix("test_")


def knows_fifo(path):
    return bool(re.search("FIFO|group", path.read_text(encoding="utf-8"), re.IGNORECASE))


def runs():
    """Return what is run: the name of a service, and modules."""
    cases = []
    for service, answers in SERVICES.items():
        found = [path for path in modules(answers) if name(path) not in ELSEWHERE]
        if service == "no results":
            found = [path for path in found if name(path) in WITHOUT_RESULTS or "ec2" in path.parts]
        elif service == "sqs-fifo":  # What knows nothing of FIFO queues or message groups runs with the others.
            found = [path for path in found if path.parent != LIBRARY or name(path) in ON_FIFO or knows_fifo(path)]
        if service != "sqs-standard":
            found = [path for path in found if name(path) not in ONCE]
        alone = [path for path in found if name(path) in ALONE]
        together = [path for path in found if path not in alone]
        slow = () if service == "sqs-standard" else (pytest.mark.slow,)
        cases.append(pytest.param(service, together, id=f"{service}-together", marks=slow))
        for path in alone:
            if service != "sqs-fifo" or name(path) in ON_FIFO or "FIFO" in path.read_text(encoding="utf-8"):
                cases.append(pytest.param(service, [path], id=f"{service}-{name(path)}", marks=pytest.mark.slow))
    return sorted(cases, key=lambda case: ALONE.index(name(case.values[1][0])) if len(case.values[1]) == 1 else -1)


@pytest.mark.parametrize(("service", "paths"), runs())
def test_library(service, paths):
    answers = SERVICES[service]
    if answers["results"] == "redis":
        need("redis-server")
    # A command that is killed while it works on SQS leaves what it leaves, whatever the kind of queue.
    left = ["-k", "not killed_in_the_middle"] if (service, name(paths[0])) == ("sqs-fifo", "dlq") else []
    tests = library_tests(answers, paths, *left)
    assert tests.returncode == 0, tests.stdout[-8000:] + tests.stderr[-4000:]


def test_every_module_runs_with_some_service():
    run = {path for _, paths in (case.values for case in runs()) for path in paths}
    assert run == {path for path in LIBRARY.rglob("test_*.py") if name(path) not in ELSEWHERE}


def test_services_have_every_option_together():
    for choice, options in CHOICES.items():
        assert {answers.get(choice, options[0]) for answers in SERVICES.values()} == set(options)
