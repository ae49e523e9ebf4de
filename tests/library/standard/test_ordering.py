"""Standard queues: message groups are optional."""

from __future__ import annotations

from library.support import module

ordering = module("brokers.sqs.properties")


def test_sqs_itself_delays_up_to_fifteen_minutes():
    for delay, sent in (
        (0, {}),
        (0.2, {"DelaySeconds": 1}),
        (900, {"DelaySeconds": 900}),
        (9000, {"DelaySeconds": 900}),
    ):
        assert ordering.standard_properties(None, delay) == sent


def test_group_is_optional():
    assert ordering.standard_properties(None) == {}
    assert ordering.standard_properties("tenant-1") == {"MessageGroupId": "tenant-1"}
