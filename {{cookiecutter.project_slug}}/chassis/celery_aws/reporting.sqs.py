"""Nothing to do: SQS itself tells CloudWatch how full its queues are."""

from __future__ import annotations

from typing import Any

BROKER_STEPS: tuple[type[Any], ...] = ()
"""What to add to the worker."""
