"""Nothing to do: a lifecycle hook lets a machine wait for its worker; see terraform/service/compute_ec2.tf."""

from __future__ import annotations

from typing import Any

PROTECTION_STEPS: tuple[type[Any], ...] = ()
"""What to add to the worker."""
