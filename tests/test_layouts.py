"""Layouts of queues and workers as real services have them, each generated, edited and run on the emulator."""

from __future__ import annotations

import json
import sys

import pytest
from conftest import need
from test_projects import succeed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def keep_names(contract):
    """One worker of four processes for `high` and stock Celery's queue, one of two for `low`, on queues that exist."""
    high, celery, low = contract["queues"]
    high.update(queue_name="legacy_high", dead_letter_queue_name="legacy_high_dead")
    celery.update(queue_name="celery")
    low.update(queue_name="legacy-{environment}-low", managed=False)
    contract["workers"][1].update(concurrency=2)
    contract["routes"] = {"reports.*": "low"}


def limit_each(contract):
    """Five queues with limits from 30 seconds to two hours, the urgent three on one worker."""
    limits = dict(zip(("high", "default", "low", "reports", "maintenance"), (30, 120, 600, 3600, 7200), strict=True))
    for queue in contract["queues"]:
        hard = limits[queue["name"]]
        queue.update(soft_limit_seconds=hard - 10, hard_limit_seconds=hard, visibility_timeout_seconds=2 * 600 + 660)
        if hard > 600:  # They share a worker, in which one may wait for the other.
            queue.update(visibility_timeout_seconds=2 * 7200 + 60, seconds_per_task=60)


def keep_order(contract):
    """A FIFO queue beside two standard ones, one of them on the same worker."""
    contract["queues"][0]["fifo"] = True


LAYOUTS = {
    "existing": ({"queues": "high+celery, low"}, keep_names),
    "five": ({"broker": "rabbitmq", "queues": "high+default+low, reports+maintenance"}, limit_each),
    "mixed": ({"queues": "orders+mail, bulk", "compute": "ec2"}, keep_order),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_when_run_then_every_queue_is_served_and_its_terraform_fits(project, layout):
    need("terraform")
    answers, change = LAYOUTS[layout]
    folder = project(results="dynamodb", **answers)
    contract = json.loads((folder / "contract.json").read_text(encoding="utf-8"))
    change(contract)
    (folder / "contract.json").write_text(json.dumps(contract, indent=2) + "\n", encoding="utf-8")
    for copies in ("compose", "timeouts"):  # As `make test` does.
        succeed(sys.executable, "-m", f"celery_aws.dev.{copies}", cwd=folder, PYTHONPATH="chassis")
    summary = succeed(sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", cwd=folder)
    for queue in contract["queues"]:
        for test in (
            "test_queue_when_a_task_is_sent_then_is_done_once",
            "test_queue_when_a_task_fails_then_is_dead_lettered_and_resent",
            "test_terraform_runs_workers_of_each_queue",
        ):
            assert f"{test}[{queue['name']}] PASSED" in summary
