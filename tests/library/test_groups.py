"""Message groups and deduplication keys that tasks state themselves, for whoever sends them."""

from __future__ import annotations

import dataclasses

import pytest
from celery import chord, group
from celery._state import _task_stack

from library.support import CONTRACT, HAS_RESULTS, module

app = module("service").app()
errors = module("errors")
QUEUE = app.contract.queues[0]


@app.task(name="tests.grouped", message_group=lambda order, **rest: f"order-{order}")
def grouped(order, *, amount=0):
    """A task whose group depends on its arguments."""


@app.task(name="tests.serial", message_group="ledger")
def serial():
    """A task that runs after all others of its kind."""


@app.task(name="tests.once", message_group="g", deduplication_key=lambda order: order)
def once(order):
    """A task that SQS drops if it was sent before."""


def groups(sent):
    return [message.get("MessageGroupId") for message in sent]


def running(task, **request):
    """Make a task the one that runs in this process; returns what ends that."""
    task.push_request(**request)
    _task_stack.push(task)

    def end():
        _task_stack.pop()
        task.pop_request()

    return end


def test_task_when_it_states_its_group_then_every_producer_uses_it(sent):
    grouped.delay(7)
    grouped.apply_async((8,), {"amount": 2})
    app.send_task("tests.grouped", [9])
    grouped.s(10).apply_async()
    serial.delay()
    assert groups(sent) == ["order-7", "order-8", "order-9", "order-10", "ledger"]


def test_canvas_when_tasks_state_their_groups_then_needs_none(sent):
    group(grouped.s(1), serial.si()).apply_async()
    assert groups(sent) == ["order-1", "ledger"]


def test_task_of_a_library_when_annotated_then_has_that_group(sent, monkeypatch):
    texts = {"library.pay": {"message_group": "ledger"}}
    functions = {"library.ship": {"message_group": lambda order: f"order-{order}"}}
    monkeypatch.setitem(app.conf, "task_annotations", {**texts, **functions})
    monkeypatch.delitem(vars(app), "annotations", raising=False)  # Celery reads them once.

    @app.task(name="library.pay")
    def pay():
        """A task whose code has no group."""

    @app.task(name="library.ship")
    def ship(order):
        """The same, of an order."""

    pay.delay()
    ship.delay(7)
    app.send_task("library.ship", [8])
    assert groups(sent) == ["ledger", "order-7", "order-8"]


def test_producer_when_it_names_a_group_then_that_counts(sent):
    app.send(grouped, 7, group="another")
    assert groups(sent) == ["another"]


def test_task_when_sent_by_another_then_keeps_its_own_group(sent):
    end = running(serial, id="1", properties={"MessageGroupId": "ledger"})
    try:
        grouped.delay(7)
    finally:
        end()
    assert groups(sent) == ["order-7"]


def test_retry_when_its_message_had_a_group_then_stays_in_it(sent):
    end = running(grouped, id="1", properties={"MessageGroupId": "chosen"})
    try:
        app.send_task("tests.grouped", [7], task_id="1", retries=1)
    finally:
        end()
    assert groups(sent) == ["chosen"]


def test_function_of_a_group_when_it_gives_no_valid_one_then_is_refused(sent):
    with pytest.raises(errors.MessageGroupError, match="MessageGroupId"):
        grouped.delay("with space")
    assert sent == []


@pytest.mark.skipif(not QUEUE.fifo, reason="only FIFO queues drop duplicates")
def test_task_when_sent_twice_with_its_key_then_both_are_one_message(sent):
    for order in ("a", "a", "b"):
        once.delay(order)
    first, same, other = (message["MessageDeduplicationId"] for message in sent)
    assert first == same != other


@pytest.mark.skipif(QUEUE.fifo, reason="FIFO queues drop duplicates")
def test_task_when_its_queue_cannot_drop_duplicates_then_is_refused(sent):
    with pytest.raises(errors.DeduplicationError, match="deduplication_key"):
        once.delay("a")
    assert sent == []


def test_queue_when_named_as_in_the_contract_then_is_found_whatever_its_kind(sent):
    grouped.apply_async((7,), queue=QUEUE.name)
    group(grouped.s(8).set(queue=QUEUE.name)).apply_async()
    assert [message["queue"] for message in sent] == [app.contract.celery_name(QUEUE)] * 2


def test_task_when_sent_by_name_then_the_tasks_are_loaded_first(sent, monkeypatch):
    """As in a producer that has imported the application only."""
    loaded = []
    monkeypatch.setattr(app.loader, "import_default_modules", lambda: loaded.append(True))
    monkeypatch.setattr(app, "_has_imported_tasks", False)
    for _ in range(2):
        app.send_task("tests.not_loaded", [7], MessageGroupId="g")
    assert (loaded, groups(sent)) == ([True], ["g", "g"])


@pytest.fixture
def mixed(monkeypatch):
    """Return the names of a standard and a FIFO queue."""
    if CONTRACT["broker"] == "rabbitmq":
        pytest.skip("RabbitMQ has no FIFO queues")
    standard, fifo = app.contract.queues[:2]
    names = app.contract.celery_name(standard), app.contract.celery_name(fifo)
    for name, is_fifo in zip(names, (False, True), strict=True):
        monkeypatch.setitem(app._served, name, dataclasses.replace(app.queue_served(name), fifo=is_fifo))
    if CONTRACT["results"] in ("dynamodb", "redis"):  # It would store how many tasks the chord has.
        monkeypatch.setattr(app.backend, "apply_chord", lambda *args, **options: None)
    return names


def signature_to(queue, name="tests.anything", **options):
    return app.signature(name, args=(1,)).set(queue=queue, **options)


WAYS = {
    "chain": lambda one, other: one | other,
    "chain in a group": lambda one, other: group([one | other], app=app),
    "link": lambda one, other: one.on_error(other.clone()).set(link=[other]),
    "link_error": lambda one, other: one.on_error(other),
    "chord": lambda one, other: chord([one, one.clone()], other, app=app),
    "chord in a chain": lambda one, other: one | chord([one.clone(), one.clone()], other, app=app),
}


@pytest.mark.skipif(not HAS_RESULTS, reason="chords need results")
@pytest.mark.parametrize("way", WAYS)
def test_canvas_when_a_later_task_lacks_its_group_then_nothing_is_sent(sent, mixed, way):
    standard, fifo = mixed
    with pytest.raises(errors.MessageGroupMissingError):
        WAYS[way](signature_to(standard), signature_to(fifo)).apply_async()
    assert sent == []


@pytest.mark.skipif(not HAS_RESULTS, reason="chords need results")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("whose", ["its own", "stated", "inherited"])
def test_canvas_when_a_later_task_has_a_group_then_is_sent(sent, mixed, way, whose):
    standard, fifo = mixed
    own = {"MessageGroupId": "g"} if whose == "its own" else {}
    later = signature_to(fifo, "tests.grouped" if whose == "stated" else "tests.anything", **own)
    WAYS[way](signature_to(standard), later).apply_async(**({"MessageGroupId": "g"} if whose == "inherited" else {}))
    assert sent


def test_chain_when_a_task_in_it_has_a_group_then_those_after_it_inherit_it(sent, mixed):
    standard, fifo = mixed
    (signature_to(standard) | signature_to(standard, MessageGroupId="g") | signature_to(fifo)).apply_async()
    assert len(sent) == 1


@pytest.mark.parametrize("group", ["a b", "x" * 129, ""])
def test_canvas_when_the_group_of_a_later_task_is_invalid_then_nothing_is_sent(sent, group):
    head = app.signature("tests.anything", args=(1,)).set(MessageGroupId="g")
    with pytest.raises(errors.MessageGroupError):
        (head | app.signature("tests.anything", args=(1,)).set(MessageGroupId=group)).apply_async()
    assert sent == []


def test_canvas_when_a_later_task_has_a_key_that_its_queue_ignores_then_nothing_is_sent(sent):
    if QUEUE.fifo:
        pytest.skip("FIFO queues honour it")
    with pytest.raises(errors.DeduplicationError):
        (app.signature("tests.anything", args=(1,)) | once.si(1)).apply_async()
    assert sent == []
