"""What cannot be honoured is refused at once, with a reason: options of tasks, pools, brokers, remote control."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
from celery import Celery
from celery.contrib.testing import worker as embedded

from library.support import CONTRACT, PATH, PROJECT, module

app = module("service").app()
checks = module("checks")
errors = module("errors")

QUEUE = app.contract.queues[0]


@pytest.fixture
def fresh(monkeypatch):
    """An application of one's own, which leaves logging as it was."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(root, "handlers", root.handlers)
    made = module("app").build(app.contract, type(app.settings))
    yield made
    root.setLevel(level)
    app.set_current()
    app.set_default()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"acks_late": False}, "a message is always deleted after its task"),
        ({"acks_on_failure": True}, "a failed task is redelivered"),
        ({"acks_on_timeout": True}, "is redelivered"),
        ({"reject_on_worker_lost": False}, "is redelivered"),
        ({"retry_on_worker_lost": True}, "the broker redelivers"),
        ({"serializer": "pickle"}, "workers accept only json"),
    ],
    ids=str,
)
def test_task_when_an_option_cannot_be_honoured_then_is_refused_when_registered(fresh, options, why):
    @fresh.task(shared=False, **options)
    def refused():
        """Do nothing."""

    with pytest.raises(errors.UnsupportedError, match=why) as error:
        refused.name  # noqa: B018 - makes Celery register it
    assert next(iter(options)) in str(error.value)


def test_tasks_when_of_any_base_then_are_checked_when_a_worker_starts(fresh):
    base: type = Celery("other").Task

    @fresh.task(base=base, shared=False, acks_late=False)
    def one():
        """Do nothing."""

    @fresh.task(base=base, shared=False, retry_on_worker_lost=True)
    def other():
        """Do nothing."""

    fresh.finalize()
    with pytest.raises(errors.UnsupportedError) as error:
        checks.check_tasks([one, other])
    assert ("acks_late=False" in str(error.value), "retry_on_worker_lost=True" in str(error.value)) == (True, True)


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_worker_when_its_pool_has_no_processes_then_ends_with_the_reason(pool):
    command = [
        sys.executable,
        "-m",
        CONTRACT["package"],
        "worker",
        app.contract.worker_of(QUEUE).name,
        f"--pool={pool}",
    ]
    source = {**os.environ, **PATH}
    run = subprocess.run(command, cwd=PROJECT, env=source, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2, run.stderr
    assert "only a process can be killed at its hard limit" in run.stderr
    assert "Traceback" not in run.stderr


def test_worker_when_its_processes_are_not_forked_then_is_refused(fresh):
    fresh.conf.update(worker_pool_start_method="spawn", broker_url="memory://", broker_transport=None)
    with (
        pytest.raises(errors.UnsupportedError, match="worker_pool_start_method='spawn' is not supported"),
        embedded.start_worker(fresh, pool="prefork", perform_ping_check=False),
    ):
        pass


def test_embedded_worker_when_its_broker_is_another_then_is_refused(fresh):
    fresh.conf.update(broker_url="memory://", broker_transport=None)
    with (
        pytest.raises(errors.UnsupportedError, match=r"the broker .* is not supported"),
        embedded.start_worker(fresh, pool="prefork", perform_ping_check=False),
    ):
        pass
