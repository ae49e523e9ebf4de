"""Nothing to do: a lifecycle hook lets a machine wait for its worker; see terraform/compute.tf."""

from __future__ import annotations

from typing import Any

PROTECTION_STEPS: tuple[type[Any], ...] = ()
"""What to add to the worker."""
