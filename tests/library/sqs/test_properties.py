"""What messages to standard and FIFO queues say beside their task."""

from __future__ import annotations

import dataclasses

import pytest

from library.support import contract, module

properties = module("brokers.sqs.properties")
Outgoing = module("brokers").Outgoing
errors = module("errors")

STANDARD, FIFO = (dataclasses.replace(contract.queues[0], fifo=fifo) for fifo in (False, True))


def of(queue, **more):
    """Return the properties of a message to a queue."""
    return properties.message_properties(Outgoing(queue, "tasks.t", "id", **{"attempt": "0:0", **more}))


@pytest.mark.parametrize(("delay", "sent"), [(0, {}), (0.2, {"DelaySeconds": 1}), (900, {"DelaySeconds": 900})])
def test_message_to_a_standard_queue_when_delayed_then_sqs_delays_it(delay, sent):
    assert of(STANDARD, delay_seconds=delay) == sent


def test_message_to_a_standard_queue_when_delayed_long_then_has_900_s():
    assert of(STANDARD, delay_seconds=9_000) == {"DelaySeconds": 900}


def test_message_to_a_standard_queue_when_without_a_group_then_has_none():
    assert of(STANDARD) == of(None) == {}
    assert of(STANDARD, group="tenant-1") == {"MessageGroupId": "tenant-1"}


def test_message_to_a_fifo_queue_when_without_a_group_then_is_refused():
    with pytest.raises(errors.MessageGroupMissingError, match=r"group='customer-7'"):
        of(FIFO)


def test_message_to_a_fifo_queue_when_of_celery_itself_then_needs_no_group():
    message = Outgoing(FIFO, "celery.chord_unlock", "id", "0:0")
    assert properties.message_properties(message)["MessageGroupId"] == "id"


def test_attempt_when_repeated_then_keeps_its_id_and_a_retry_has_another():
    first = of(FIFO, group="g")
    assert first == of(FIFO, group="g")
    retry = of(FIFO, group="g", attempt="1:0")
    assert first["MessageGroupId"] == retry["MessageGroupId"] == "g"
    assert first["MessageDeduplicationId"] != retry["MessageDeduplicationId"]


def test_message_to_a_fifo_queue_when_delayed_then_is_not_delayed_by_sqs():
    assert "DelaySeconds" not in of(FIFO, group="g", delay_seconds=60)


def test_deduplication_key_when_equal_then_messages_are_duplicates():
    one, same, other = (
        properties.message_properties(Outgoing(FIFO, "tasks.t", task_id, "0:0", "g", key))["MessageDeduplicationId"]
        for task_id, key in (("1", "order-7"), ("2", "order-7"), ("3", "order-8"))
    )
    assert one == same != other


def test_deduplication_key_when_two_tasks_have_the_same_then_both_are_sent():
    ids = {
        properties.message_properties(Outgoing(FIFO, task, "1", "0:0", "g", "f1"))["MessageDeduplicationId"]
        for task in ("tasks.load", "tasks.delete")
    }
    assert len(ids) == 2


def test_retries_when_their_messages_had_one_key_then_are_no_duplicates():
    ids = [
        properties.message_properties(Outgoing(FIFO, "tasks.t", task_id, "1:0", "g", "order-7"))
        for task_id in ("first", "second")
    ]
    assert ids[0]["MessageDeduplicationId"] != ids[1]["MessageDeduplicationId"]


@pytest.mark.parametrize("key", ["with space", "x" * 126, "ä"])
def test_deduplication_key_when_sqs_does_not_allow_it_then_is_refused(key):
    with pytest.raises(errors.DeduplicationError, match="deduplication_key"):
        of(FIFO, group="g", deduplication_key=key)


def test_deduplication_key_when_the_queue_is_standard_then_is_refused():
    with pytest.raises(errors.DeduplicationError, match="only FIFO queues"):
        of(STANDARD, deduplication_key="order-7")
