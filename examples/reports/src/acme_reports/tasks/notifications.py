"""Sends mails."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError

from .. import database
from ..celery import app
from . import audit

TIMEOUT_SECONDS = 10


def send(report_id: str) -> None:
    """Have the mail about a report sent. Sending it again is harmless."""
    send_mail.s(report_id).apply_async(task_id=f"{report_id}-mail")


@app.task(permanent_errors=(database.UnknownCustomerError,))
def send_mail(report_id: str) -> bool:
    """Tell the customer that a report is done; return whether this delivery has sent the mail.

    The transaction that inserts a unique row sends the mail, too. A second delivery at the same time waits for the
    first, and then finds the row. If the process dies between the mail server's answer and the commit, the row is gone
    and the mail is sent again, with the same Message-ID: no mail server can take part in a transaction.
    """
    report = database.report(report_id)
    message = mail(report, database.mail_of(report.customer))
    is_sent = False
    try:
        with database.engine.begin() as db:
            db.execute(database.mails.insert().values(report_id=report_id))
            post(message)
            is_sent = True
    except IntegrityError:
        pass
    audit.send(report_id, "mailed")
    return is_sent


def mail(report: Row[Any], to: str) -> EmailMessage:
    """Return the mail about a report."""
    message = EmailMessage()
    message["From"], message["To"] = app.settings.mail_from, to
    message["Subject"] = f"Your report from {report.first} to {report.last}"
    message["Message-ID"] = f"<{report.id}@{app.settings.mail_from.partition('@')[2]}>"
    message.set_content(f"The report {report.id} is ready. It has {report.rows_total} rows.\n")
    return message


def post(message: EmailMessage) -> None:
    """Hand a mail to the mail server.

    Raises:
        smtplib.SMTPException: the server refuses it.
        OSError: the server does not answer.
    """
    url = urlsplit(app.settings.smtp_url.get_secret_value())
    kind = smtplib.SMTP_SSL if url.scheme == "smtps" else smtplib.SMTP
    with kind(url.hostname or "", url.port or 0, timeout=TIMEOUT_SECONDS) as server:
        if url.username:
            server.login(unquote(url.username), unquote(url.password or ""))
        server.send_message(message)
