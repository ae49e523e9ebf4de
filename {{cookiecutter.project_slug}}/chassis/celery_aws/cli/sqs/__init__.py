"""Commands whose options are those of the broker."""

from __future__ import annotations

from .redrive import redrive as redrive
