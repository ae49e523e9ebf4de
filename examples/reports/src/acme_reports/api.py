"""The API: `uvicorn acme_reports.api:api`. It has no authentication; put yours before it."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

import boto3
from fastapi import FastAPI, Header, HTTPException, Response
from pydantic import BaseModel, Field, model_validator
from sqlalchemy import Row

from . import database
from .celery import app
from .tasks import audit, reports

LINK_SECONDS = 300

api = FastAPI(title="Reports")


class ReportRequest(BaseModel):
    """The orders of a customer from one day to another."""

    customer: Annotated[str, Field(min_length=1, max_length=100)]
    first: Annotated[date, Field(alias="from")]
    last: Annotated[date, Field(alias="to")]

    @model_validator(mode="after")
    def check_period(self) -> ReportRequest:
        """Refuse a period that ends before it begins."""
        if self.last < self.first:
            raise ValueError("`to` must not be before `from`")
        return self


@api.post("/reports", status_code=202)
def request_report(
    request: ReportRequest,
    response: Response,
    idempotency_key: Annotated[str, Header(min_length=1, max_length=200)],
) -> dict[str, Any]:
    """Request a report. A request with the same key returns the same report.

    The report is stored before its task is sent. If this process dies or the broker fails in between, the caller gets
    no answer or an error, and repeats the request with the same key, which sends the task.
    """
    report = database.create_report(idempotency_key, request.customer, request.first, request.last)
    if (report.customer, report.first, report.last) != (request.customer, request.first, request.last):
        raise HTTPException(409, "The key was used for another report.")
    if report.status in ("queued", "failed"):
        reports.send(report.id)
    response.headers["Location"] = f"/reports/{report.id}"
    return _shown(report)


@api.get("/reports/{report_id}")
def get_report(report_id: str) -> dict[str, Any]:
    """Return state and progress of a report, and when it is done a link to its file that expires soon."""
    report = _found(report_id)
    shown = _shown(report)
    if report.status == "done":
        file = {"Bucket": app.settings.reports_bucket, "Key": reports.key(report_id)}
        shown["url"] = boto3.client("s3").generate_presigned_url("get_object", file, ExpiresIn=LINK_SECONDS)
    return shown


@api.delete("/reports/{report_id}")
def cancel_report(report_id: str) -> dict[str, Any]:
    """Cancel a report that is not done; a task that writes it stops before its next page."""
    _found(report_id)
    database.change_report(report_id, database.UNFINISHED, status="cancelled")
    report = _found(report_id)
    if report.status != "cancelled":
        raise HTTPException(409, "The report is done.")
    audit.send(report_id, "cancelled")
    return _shown(report)


def _found(report_id: str) -> Row[Any]:
    report = database.find(database.reports, id=report_id)
    if report is None:
        raise HTTPException(404, "There is no such report.")
    return report


def _shown(report: Row[Any]) -> dict[str, Any]:
    return {name: report._mapping[name] for name in ("id", "status", "rows_done", "rows_total")}
