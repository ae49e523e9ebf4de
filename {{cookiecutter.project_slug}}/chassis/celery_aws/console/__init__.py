"""A web page for operators: queues, dead-letter messages, tasks and schedules, with the code of the commands.

It listens on the loopback interface, and requires Flask, which is an extra.
"""

from __future__ import annotations

from .server import Console
from .site import make_app

__all__ = ["Console", "make_app"]
