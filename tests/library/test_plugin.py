"""The fixtures that the chassis brings for an owner's own tests."""

from __future__ import annotations

import pytest

from celery_aws.testing import plugin
from library.support import CONTRACT, HAS_RESULTS, broker, eventually, tasks_of

pytestmark = pytest.mark.end_to_end
QUEUE = CONTRACT["queues"][0]["name"]


@pytest.mark.parametrize("by_name", [True, False])
def test_task_when_delivered_then_its_result_is_returned(deliver, by_name):
    task = f"{QUEUE}.measure" if by_name else tasks_of(QUEUE).measure
    assert deliver(task, "three") == (5 if HAS_RESULTS else None)


def test_task_when_it_fails_then_its_error_is_raised_or_told(service, deliver):
    with pytest.raises((ValueError, plugin.NotDoneError), match="not this one"):
        deliver(f"{QUEUE}.refuse", "not this one", group="failing")
    assert eventually(lambda: service.dead() == 1), service.log()
    broker.empty(service, dead=True)  # What is there is counted by other tests.


def test_task_when_it_takes_too_long_then_the_log_of_its_worker_is_told(service, deliver):
    with pytest.raises(plugin.NotDoneError, match=r"(?s)not done within 0\.1 s:.* ready\."):
        deliver(f"{QUEUE}.rest", 2, group="slow", timeout_seconds=0.1)
    assert eventually(lambda: service.waiting() == 0), service.log()
