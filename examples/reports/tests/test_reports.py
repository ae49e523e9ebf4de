"""A report from the request to the audit trail, with deliveries that are repeated and workers that are killed."""

from __future__ import annotations

import csv
import smtplib
import time
import uuid
from datetime import date

import httpx
import pytest

from acme_reports import database, prepare
from acme_reports.celery import app
from acme_reports.tasks import notifications, reports

WITH_RESULTS = app.contract.results != "none"
JANUARY = {"customer": "Ann", "from": "2026-01-01", "to": "2026-01-31"}
ROWS = 93


def eventually(holds, seconds=30):
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def post(api, key="", **changed):
    answer = api.post("/reports", json={**JANUARY, **changed}, headers={"Idempotency-Key": key or str(uuid.uuid4())})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def ends(api, report_id, status):
    """Return a report when it has a status; as it was at last if it never has."""
    eventually(lambda: api.get(f"/reports/{report_id}").json()["status"] == status)
    return api.get(f"/reports/{report_id}").json()


def is_recorded(report_id, event):
    return eventually(lambda: database.find(database.audit, report_id=report_id, event=event))


def test_report_when_requested_then_is_stored_mailed_and_recorded(api, inbox):
    report_id = post(api)
    report = ends(api, report_id, "done")
    assert (report["status"], report["rows_done"], report["rows_total"]) == ("done", ROWS, ROWS)
    rows = list(csv.reader(httpx.get(report["url"]).text.splitlines()))
    assert (rows[0], rows[1], len(rows)) == (["order", "day", "cents"], ["1", "2026-01-01", "100"], ROWS + 1)
    assert is_recorded(report_id, "mailed")
    (mail,) = inbox.about(report_id)
    assert (mail["To"], mail["Message-ID"]) == ("ann@example.com", f"<{report_id}@example.com>")


def test_report_when_every_step_is_delivered_again_then_nothing_changes(api, inbox, deliver):
    key = str(uuid.uuid4())
    report_id = post(api, key)
    assert post(api, key) == report_id
    report = ends(api, report_id, "done")
    assert is_recorded(report_id, "mailed")
    text = httpx.get(report["url"]).text
    for _ in range(2):
        returned = [
            deliver("reports.write", report_id),
            deliver("notifications.send_mail", report_id),
            deliver("audit.record", report_id, "mailed"),
        ]
        assert returned == (["done", False, False] if WITH_RESULTS else [None] * 3)
    again = ends(api, report_id, "done")
    assert httpx.get(again.pop("url")).text == text
    assert again == {name: value for name, value in report.items() if name != "url"}
    assert len(inbox.about(report_id)) == 1


def test_report_when_its_key_is_used_for_another_then_is_refused(api):
    post(api, "a key")
    answer = api.post("/reports", json={**JANUARY, "customer": "Bob"}, headers={"Idempotency-Key": "a key"})
    assert answer.status_code == 409


def test_report_when_customer_is_unknown_then_fails_until_there_is_one(api, inbox):
    key = str(uuid.uuid4())
    report_id = post(api, key, customer="Bob")
    assert ends(api, report_id, "failed")["status"] == "failed"
    assert is_recorded(report_id, "failed")
    database.insert(database.customers, name="Bob", mail="bob@example.com")
    assert post(api, key, customer="Bob") == report_id
    assert ends(api, report_id, "done")["status"] == "done"
    assert eventually(lambda: inbox.about(report_id))


def test_report_when_its_worker_is_killed_after_the_upload_then_one_mail(api, inbox, service, tmp_path):
    service.workers["reports"].terminate()
    service.workers["reports"].wait(30)
    died = tmp_path / "died"
    dying = service.start_worker("reports", extra=("--include=tests.dying",), DIED=str(died))
    report_id = post(api)
    assert eventually(died.exists), service.log("reports")
    if app.contract.broker == "rabbitmq":
        dying.wait(30)
        assert api.get(f"/reports/{report_id}").json()["status"] == "running"
        service.start_worker("reports")
    assert ends(api, report_id, "done")["status"] == "done", service.log("reports")
    assert is_recorded(report_id, "mailed")
    assert len(inbox.about(report_id)) == 1


def test_cancel_when_the_report_waits_then_it_is_never_written(api, deliver):
    report = database.create_report(str(uuid.uuid4()), "Ann", date(2026, 1, 1), date(2026, 1, 31))
    assert api.delete(f"/reports/{report.id}").json()["status"] == "cancelled"
    assert deliver("reports.write", report.id) == ("cancelled" if WITH_RESULTS else None)
    assert is_recorded(report.id, "cancelled")


def test_cancel_when_the_report_is_done_then_is_refused(api):
    report_id = post(api)
    ends(api, report_id, "done")
    assert api.delete(f"/reports/{report_id}").status_code == 409


@pytest.fixture
def report(monkeypatch):
    """A report of 1,000 rows that this process writes itself, without AWS."""
    database.metadata.create_all(database.engine)
    prepare.add_orders()
    monkeypatch.setattr(reports, "upload", lambda report_id, file: None)
    monkeypatch.setattr(notifications.audit, "send", lambda report_id, event: None)
    return database.create_report(str(uuid.uuid4()), "Ann", date(2026, 1, 1), date(2026, 12, 31))


def test_cancel_when_the_report_is_written_then_ends_before_its_next_page(report, monkeypatch):
    pages = database.pages_of_orders

    def pages_and_cancel(report):
        for number, page in enumerate(pages(report), 1):
            if number == 3:
                database.change_report(report.id, database.UNFINISHED, status="cancelled")
            yield page

    monkeypatch.setattr(database, "pages_of_orders", pages_and_cancel)
    monkeypatch.setattr(reports, "upload", lambda report_id, file: pytest.fail("it was stored"))
    assert reports.write(report.id) == "cancelled"
    assert database.report(report.id).rows_done == 200


def test_report_when_another_message_fails_meanwhile_then_is_redelivered(report, monkeypatch):
    pages = database.pages_of_orders

    def pages_and_fail(report):
        for page in pages(report):
            reports.fail(report.id)
            yield page

    monkeypatch.setattr(notifications, "send", lambda report_id: None)
    monkeypatch.setattr(reports.audit, "send", lambda report_id, event: None)
    with monkeypatch.context() as failing:
        failing.setattr(database, "pages_of_orders", pages_and_fail)
        with pytest.raises(RuntimeError, match="another message"):
            reports.write(report.id)
    assert reports.write(report.id) == "done"


def test_report_when_its_mail_is_not_sent_then_the_next_delivery_does(report, monkeypatch):
    answers = [ConnectionError("no broker"), None]

    def answer(report_id):
        if error := answers.pop(0):
            raise error

    monkeypatch.setattr(notifications, "send", answer)
    with pytest.raises(ConnectionError):
        reports.write(report.id)
    assert reports.write(report.id) == "done"
    assert answers == []


def test_mail_when_the_server_refuses_it_then_the_next_delivery_sends_it(report, monkeypatch):
    answers = [smtplib.SMTPServerDisconnected("bye"), None]

    def answer(message):
        if error := answers.pop(0):
            raise error

    monkeypatch.setattr(notifications, "post", answer)
    with pytest.raises(smtplib.SMTPServerDisconnected):
        notifications.send_mail(report.id)
    assert [notifications.send_mail(report.id), notifications.send_mail(report.id)] == [True, False]
    assert answers == []
