"""Commands that have a worker consume a queue, or stop to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery.worker.control import Panel

from library.support import contract, module

consuming = module("consuming")


@pytest.mark.parametrize("command", consuming.COMMANDS)
@pytest.mark.parametrize("queue", ["no-such-queue", "", ["a list"]])
def test_queue_when_the_contract_lacks_it_then_the_command_is_refused(command, queue):
    app = SimpleNamespace(contract=contract)
    # Without a consumer: carrying it out would raise.
    assert set(Panel.data[command](SimpleNamespace(app=app), queue)) == {"error"}


@pytest.mark.parametrize("command", consuming.COMMANDS)
def test_queue_when_the_contract_has_it_then_the_command_is_carried_out(command):
    called = []
    consumer = SimpleNamespace(add_task_queue="add", cancel_task_queue="cancel", call_soon=lambda *a: called.append(a))
    name = contract.celery_name(contract.queues[0])
    answer = Panel.data[command](SimpleNamespace(app=SimpleNamespace(contract=contract), consumer=consumer), queue=name)
    assert set(answer) == {"ok"}
    assert called[0][:2] == (command.partition("_")[0], name)
