"""Commands that revoke tasks, in the main process of a worker."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery.worker import state
from celery.worker.control import Panel

from library.support import module

module("revoking")
RUNNING = "r1"


@pytest.fixture
def terminated(monkeypatch):
    """Run a task, and record the signals that it gets."""
    signals = []
    request = SimpleNamespace(id=RUNNING, terminate=lambda pool, signal: signals.append(signal))
    monkeypatch.setattr(state, "requests", {RUNNING: request})
    monkeypatch.setattr(state, "revoked", type(state.revoked)())
    return signals


# An application without a result backend: asking one would raise.
WORKER = SimpleNamespace(consumer=SimpleNamespace(pool=None), app=None)


@pytest.mark.parametrize(
    ("command", "arguments", "signals"),
    [
        ("revoke", {"task_id": RUNNING}, []),
        ("revoke", {"task_id": [RUNNING, "w1"], "terminate": True, "signal": "SIGKILL"}, [9]),
        ("revoke", {"task_id": "w1", "terminate": True}, []),
        ("terminate", {"signal": "SIGTERM", "task_id": [RUNNING]}, [15]),
    ],
)
def test_tasks_when_revoked_then_are_noted_without_asking_for_their_state(terminated, command, arguments, signals):
    answer = Panel.data[command](WORKER, **arguments)
    assert set(answer) == {"ok"}
    assert terminated == signals
    given = arguments["task_id"]
    assert set(state.revoked) == set([given] if isinstance(given, str) else given)
