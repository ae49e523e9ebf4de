"""Fixtures: environment variables that fit for fast tests, and a service that really runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from celery_aws.dev import broker, results
from tests.support import CONTRACT, HURRIED, RunningService, running_service

pytest_plugins = ["celery_aws.testing.plugin"]

VISIBILITY_TIMEOUT_SECONDS = 5

# A shell starts jobs in the background deaf to Ctrl-C, and they hand that on to what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Fast tests reach nothing: whatever they send by mistake is refused at once.
os.environ.update(
    {
        "CONTRACT_FILE": str(HURRIED),
        "ENVIRONMENT": "test",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": CONTRACT["region"],
        "AWS_ACCESS_KEY_ID": "TESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "test/secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        **broker.UNREACHABLE,
        **results.UNREACHABLE,
    }
)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run the service with one worker per queue, and a visibility timeout that tests can wait for."""
    with running_service(tmp_path_factory.mktemp("logs"), VISIBILITY_TIMEOUT_SECONDS) as running:
        for queue in CONTRACT["queues"]:
            running.start_worker(queue["name"])
        yield running


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Run the service without a worker, each test module its own."""
    with running_service(tmp_path_factory.mktemp("logs")) as running:
        yield running
