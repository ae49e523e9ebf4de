"""Tasks of this module's queue; replace the examples by your own.

Each can be delivered twice, so doing it again must do no harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import Signature

from ..celery import app


@app.task
def reverse(text: str) -> str:
    """Turn a text round."""
    return text[::-1]


def examples() -> Iterator[Signature[Any]]:
    """Yield what `make dev` sends to this queue."""
    yield reverse.s("stressed")
