"""The producer of `make dev`."""

from __future__ import annotations

import shlex
from types import SimpleNamespace

import pytest
from celery import signature

from library.support import CONTRACT, IS_FIFO, contract, module

producer = module("dev.producer")


def test_producer_when_a_task_cannot_be_sent_then_ends_with_what_to_do():
    def fail(**_):
        raise LookupError("no such queue")

    with pytest.raises(SystemExit) as ended:
        producer.send("high", SimpleNamespace(apply_async=fail), 1)
    assert "no such queue" in str(ended.value)
    assert "make dev" in str(ended.value)


def test_producer_when_an_example_has_plain_arguments_then_shows_its_command():
    task = f"{CONTRACT['package']}.examples.count_words"
    shown = shlex.split(producer.command(contract, signature(task, args=["one two", {"a": [1]}])))
    assert shown[:5] == [CONTRACT["service"], "send", "examples.count_words", "one two", '{"a": [1]}']
    assert ("--group" in shown) == IS_FIFO
    for other in (signature(task, kwargs={"a": 1}), signature(task) | signature(task)):
        assert producer.command(contract, other) == ""
