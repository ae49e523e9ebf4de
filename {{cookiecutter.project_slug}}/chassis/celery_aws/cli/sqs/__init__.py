"""Commands for SQS."""

from __future__ import annotations

from .redrive import redrive as redrive
