"""Remote control: Celery's own works on RabbitMQ."""

from __future__ import annotations

CONTROL = "celery.app.control:Control"
"""What Celery's application is to use for remote control."""
