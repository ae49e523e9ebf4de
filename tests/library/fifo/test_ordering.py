"""FIFO: a group always, and an id that only repetitions of one sending share."""

from __future__ import annotations

import pytest

from library.support import contract, module

ordering = module("brokers.sqs.properties")


def test_sending_without_a_group_is_an_error_that_says_how():
    with pytest.raises(module("errors").MessageGroupMissingError, match=r"group='customer-7'"):
        ordering.fifo_properties("tasks.t", "id", "0:0", None)


def test_an_attempt_has_one_deduplication_id_and_the_next_another():
    first = ordering.fifo_properties("tasks.t", "id", "0:0", "g")
    assert first == ordering.fifo_properties("tasks.t", "id", "0:0", "g")
    retry = ordering.fifo_properties("tasks.t", "id", "1:0", "g")
    assert first["MessageGroupId"] == retry["MessageGroupId"] == "g"
    assert first["MessageDeduplicationId"] != retry["MessageDeduplicationId"]


def test_sqs_delays_nothing():
    assert "DelaySeconds" not in ordering.message_properties(contract, "tasks.t", "id", "0:0", "g", 60)


def test_tasks_of_celery_itself_need_no_group():
    assert ordering.fifo_properties("celery.chord_unlock", "id", "0:0", None)["MessageGroupId"] == "id"
