"""Outages of the result backend, for tests."""

from __future__ import annotations

from library.aws_faults import Outages, results_behind

KINDS = ("503", "throttled", "expired", "hang", "drip", "refused", "page")
"""Ways of being unavailable."""

__all__ = ["KINDS", "Outages", "results_behind"]
