"""Writes reports: rows of the database become a CSV file in S3."""

from __future__ import annotations

import csv
import io
import tempfile
from typing import IO, Any

import boto3
from sqlalchemy import Row

from .. import database
from ..celery import app
from ..database import UNFINISHED
from . import audit, notifications


def send(report_id: str) -> None:
    """Have a report written. Sending it again is harmless."""
    write.s(report_id).apply_async(
        task_id=f"{report_id}-write",
        link_error=fail.si(report_id),  # Sent once, after the last attempt.
        MessageGroupId=report_id,
    )


@app.task(permanent_errors=(database.UnknownCustomerError,))
def write(report_id: str) -> str:
    """Write a report, store it and have a mail sent; return the state of the report.

    Each delivery writes the same content to the same key, and only one of them changes the state to `done`. The mail
    is sent by every delivery that finds the report done: one before it may have died in between.
    """
    report = database.report(report_id)
    total = database.count_orders(report)
    if database.change_report(report_id, UNFINISHED, status="running", rows_done=0, rows_total=total):
        database.mail_of(report.customer)
        with tempfile.TemporaryFile() as file:
            if write_pages(report, file):
                upload(report_id, file)
                database.change_report(report_id, ("running",), status="done", rows_done=total)
    status = str(database.report(report_id).status)
    if status == "failed":
        raise RuntimeError(f"the last attempt of another message of report {report_id} failed meanwhile")
    if status == "done":
        notifications.send(report_id)
    return status


def write_pages(report: Row[Any], file: IO[bytes]) -> bool:
    """Write the rows as CSV; return False as soon as the report is no longer running because it was cancelled."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    table, done = csv.writer(text), 0
    table.writerow(("order", "day", "cents"))
    for page in database.pages_of_orders(report):
        table.writerows(page)
        done += len(page)
        if not database.change_report(report.id, ("running",), rows_done=done):
            return False
    text.detach()
    return True


def upload(report_id: str, file: IO[bytes]) -> None:
    """Store the file under a key that follows from the report."""
    file.seek(0)
    boto3.client("s3").upload_fileobj(file, app.settings.reports_bucket, key(report_id))


def key(report_id: str) -> str:
    """Return the key of a report's file in S3."""
    return f"reports/{report_id}.csv"


@app.task
def fail(report_id: str) -> None:
    """Show that the last attempt has failed; the message and the reason are in the dead-letter queue."""
    if database.change_report(report_id, ("queued", "running"), status="failed"):
        audit.send(report_id, "failed")
