"""Keeps the audit trail."""

from __future__ import annotations

from .. import database
from ..celery import app


def send(report_id: str, event: str) -> None:
    """Have an event recorded. Sending it again is harmless."""
    record.s(report_id, event).apply_async(task_id=f"{report_id}-{event}", MessageGroupId=report_id)


@app.task
def record(report_id: str, event: str) -> bool:
    """Append an event of a report; return whether this delivery has appended it."""
    return database.insert(database.audit, report_id=report_id, event=event)
