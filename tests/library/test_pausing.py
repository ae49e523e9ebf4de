"""Paused queues, whatever has been stored of them."""

from __future__ import annotations

import pytest

from library.support import module

pausing = module("pausing")


@pytest.mark.parametrize(
    "at", [None, "yesterday", "\N{SUPERSCRIPT TWO}", [], float("nan"), float("inf"), 10**400, "9" * 400]
)
def test_pause_when_its_time_is_no_number_then_is_shown_without(at):
    assert pausing.described(pausing.Pause.of({"by": "somebody", "at": at})) == "paused by somebody"


@pytest.mark.parametrize("at", [1_700_000_000, "1700000000.5"])
def test_pause_when_its_time_is_stored_then_is_kept(at):
    assert pausing.Pause.of({"at": at}).at == float(at)
