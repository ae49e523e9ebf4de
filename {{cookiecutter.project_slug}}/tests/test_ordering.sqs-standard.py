"""Standard queues: a group is welcome, and nobody has to name one."""

from __future__ import annotations

from tests.support import module

ordering = module("ordering")


def test_sqs_itself_delays_up_to_fifteen_minutes():
    for delay, sent in (
        (0, {}),
        (0.2, {"DelaySeconds": 1}),
        (900, {"DelaySeconds": 900}),
        (9000, {"DelaySeconds": 900}),
    ):
        assert ordering.message_properties("tasks.t", "id", "0:0", None, delay) == sent


def test_group_is_optional():
    assert ordering.message_properties("tasks.t", "id", "0:0", None) == {}
    assert ordering.message_properties("tasks.t", "id", "0:0", "tenant-1") == {"MessageGroupId": "tenant-1"}
