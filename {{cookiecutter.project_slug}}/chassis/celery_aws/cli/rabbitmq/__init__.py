"""Commands for RabbitMQ."""

from __future__ import annotations

from .redrive import redrive as redrive
