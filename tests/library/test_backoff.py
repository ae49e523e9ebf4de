"""How long a failed attempt is followed by nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from library.support import module

backoff_seconds = module("backoff").backoff_seconds

QUEUE = replace(
    module("service").contract().queues[0],
    retry_backoff_seconds=10,
    visibility_timeout_seconds=100,
    max_receive_count=50,
)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 10), (2, 20), (3, 40), (4, 80), (9, 100), (40, 100)])
def test_backoff_when_an_attempt_fails_then_doubles_with_jitter(attempt, longest):
    chosen = {backoff_seconds(QUEUE, attempt) for _ in range(300)}
    assert longest / 2 <= min(chosen) < max(chosen) <= longest


def test_backoff_after_the_last_attempt_then_is_none():
    assert backoff_seconds(replace(QUEUE, max_receive_count=5), 5) == 0


def test_backoff_when_a_task_has_its_own_then_replaces_the_queues():
    assert 25 <= backoff_seconds(QUEUE, 1, 50) <= 50
    assert backoff_seconds(QUEUE, 1, 0) == 0
