"""The producer of `make dev`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from library.support import module

producer = module("dev.producer")


def test_producer_when_a_task_cannot_be_sent_then_ends_with_what_to_do():
    def fail(**_):
        raise LookupError("no such queue")

    with pytest.raises(SystemExit) as ended:
        producer.send("high", SimpleNamespace(apply_async=fail), 1)
    assert "no such queue" in str(ended.value)
    assert "make dev" in str(ended.value)
