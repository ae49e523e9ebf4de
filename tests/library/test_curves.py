"""Values over time, in one row of a terminal."""

from __future__ import annotations

import pytest

from library.support import module

curves = module("charts")


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], ""), ([None], "·"), ([0, 0], "▁▁"), ([0, 1, None, 2], "▁▅·█"), ([5], "█")],
)
def test_sparkline(values, drawn):
    assert curves.sparkline(values) == drawn


@pytest.mark.parametrize(("hours", "period"), [(0.1, 60), (0.5, 60), (3, 300), (24, 2_160), (336, 30_240)])
def test_curves_fit_their_row(hours, period):
    assert curves.period_seconds(hours) == period
    assert hours * 3_600 / period <= curves.POINTS
