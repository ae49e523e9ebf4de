"""Outages of the result backend, for tests: there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

KINDS: tuple[str, ...] = ()


@contextlib.contextmanager
def results_behind(environment: dict[str, str]) -> Iterator[Any]:
    """Put a proxy in front of the result backend."""
    raise NotImplementedError
    yield
