"""What a task process decides about an attempt, without a broker."""

from __future__ import annotations

import time

import pytest

from tests import probes
from tests.support import module

app = module("app")
delivery = module("delivery")
errors = module("errors")

QUEUE = app.contract.queues[0]


@app.app.task(name="tests.never", shared=False)
def never():
    """A task that must not run."""
    raise AssertionError("it ran")


def attempt_at(task, **info):
    """Run a task as a task process does; return what it decided."""
    facts = {
        "routing_key": app.contract.celery_name(QUEUE),
        "receive_count": 1,
        "is_last": False,
        "hold_until": time.monotonic() + 60,
        "start_before": time.monotonic() + 30,
        "mark": 0,
        **info,
    }
    request = {"id": "1", "task": task.name, "properties": {}, "delivery_info": facts}
    app.app.set_current()
    return delivery.deliver(task.name, "1", request, ([], {}, {}), None, None)


def test_message_when_it_waited_too_long_in_its_worker_then_is_released_unstarted():
    verdict = attempt_at(never, start_before=time.monotonic() - 1)
    assert (verdict.action, verdict.outcome) == (delivery.Action.RELEASE, "interrupted")
    assert verdict.redelivery_in_seconds == 0


@pytest.mark.parametrize("kind", ["BadRepr", "Huge", "KeyboardInterrupt"])
def test_error_when_it_is_huge_or_broken_then_is_stored_cut(kind):
    error = probes.ENDS[kind]()
    stored = delivery.storable(error)
    assert isinstance(stored, Exception)
    assert len(str(stored.args)) < 2 * delivery.MAX_ERROR_CHARACTERS
    reason = delivery.reason_of(error, 1)
    assert type(error).__name__ in reason["FailureException"]
    assert max(map(len, reason.values())) <= delivery.MAX_REASON_CHARACTERS


def test_errors_when_raised_then_are_all_in_one_module():
    for name in ("CountdownTooLongError", "MessageGroupError"):
        assert getattr(app, name) is getattr(errors, name)
