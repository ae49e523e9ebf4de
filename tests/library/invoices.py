"""The task that the page on other languages sends, in the first queue's module as far as its name says."""

from __future__ import annotations

import time
from typing import Any

from celery import Task, shared_task

from library.support import CONTRACT

QUEUE = CONTRACT["queues"][0]["name"]
NAME = f"{CONTRACT['package']}.tasks.{QUEUE.replace('-', '_')}.send_invoice"


@shared_task(bind=True, name=NAME)
def send_invoice(self: Task[Any, Any], order: str) -> list[Any]:
    """Return the order, the message group, the log's request id and when it ran."""
    return [order, (self.request.properties or {}).get("MessageGroupId"), time.time()]
