"""The database: its tables, and every change of a report as one conditional statement."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from datetime import date
from typing import Any

import sqlalchemy as sa
from celery import signals
from sqlalchemy import Column, Date, DateTime, Integer, Row, String

from .celery import app

ROWS_PER_PAGE = 100

UNFINISHED = ("queued", "running", "failed")
"""States from which a report can still be written. `done` and `cancelled` are final."""


class UnknownCustomerError(Exception):
    """There is no customer of that name. Another attempt would find none either."""


metadata = sa.MetaData()
customers = sa.Table(
    "customers", metadata, Column("name", String(100), primary_key=True), Column("mail", String(254), nullable=False)
)
orders = sa.Table(
    "orders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("customer", String(100), nullable=False),
    Column("day", Date, nullable=False),
    Column("cents", Integer, nullable=False),
    sa.Index("orders_of_customer", "customer", "id"),
)
reports = sa.Table(
    "reports",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("key", String(200), unique=True, nullable=False),
    Column("customer", String(100), nullable=False),
    Column("first", Date, nullable=False),
    Column("last", Date, nullable=False),
    Column("status", String(9), nullable=False, default="queued"),
    Column("rows_done", Integer, nullable=False, default=0),
    Column("rows_total", Integer),
)
mails = sa.Table("mails", metadata, Column("report_id", String(36), primary_key=True))
audit = sa.Table(
    "audit",
    metadata,
    Column("report_id", String(36), primary_key=True),
    Column("event", String(20), primary_key=True),
    Column("at", DateTime(timezone=True), server_default=sa.func.now()),
)

_url = app.settings.database_url.get_secret_value()
# Seconds that SQLite waits for another transaction, longer than a mail may take.
engine = sa.create_engine(_url, connect_args={"timeout": 30} if _url.startswith("sqlite") else {})


@signals.worker_process_init.connect
def _forget_connections(**rest: Any) -> None:
    """Leave connections from before the fork to the main process."""
    engine.dispose(close=False)


def create_report(key: str, customer: str, first: date, last: date) -> Row[Any]:
    """Return the report with a key; create it if there is none."""
    values = {"id": str(uuid.uuid4()), "key": key, "customer": customer, "first": first, "last": last}
    insert(reports, **values)
    with engine.connect() as db:
        return db.execute(reports.select().where(reports.c.key == key)).one()


def insert(table: sa.Table, **values: Any) -> bool:
    """Insert a row unless one with its unique key exists; return whether it was inserted."""
    try:
        with engine.begin() as db:
            db.execute(table.insert().values(**values))
    except sa.exc.IntegrityError:
        return False
    return True


def find(table: sa.Table, **values: Any) -> Row[Any] | None:
    """Return the row with some values, or None."""
    with engine.connect() as db:
        return db.execute(table.select().filter_by(**values)).one_or_none()


def mail_of(customer: str) -> str:
    """Return the mail address of a customer.

    Raises:
        UnknownCustomerError: there is no such customer.
    """
    if (row := find(customers, name=customer)) is None:
        raise UnknownCustomerError(customer)
    return str(row.mail)


def report(report_id: str) -> Row[Any]:
    """Return a report.

    Raises:
        sqlalchemy.exc.NoResultFound: there is none.
    """
    with engine.connect() as db:
        return db.execute(reports.select().where(reports.c.id == report_id)).one()


def change_report(report_id: str, states: Collection[str], **values: Any) -> bool:
    """Change a report if it is in one of some states; return whether it was."""
    statement = reports.update().where(reports.c.id == report_id, reports.c.status.in_(states))
    with engine.begin() as db:
        return db.execute(statement.values(**values)).rowcount == 1


def count_orders(report: Row[Any]) -> int:
    """Return how many rows a report will have."""
    with engine.connect() as db:
        return db.execute(sa.select(sa.func.count()).where(*_of(report))).scalar_one()


def pages_of_orders(report: Row[Any]) -> Iterator[list[Any]]:
    """Yield the rows of a report, in pages."""
    last_id = 0
    while True:
        page = sa.select(orders.c.id, orders.c.day, orders.c.cents).where(*_of(report), orders.c.id > last_id)
        with engine.connect() as db:
            rows = list(db.execute(page.order_by(orders.c.id).limit(ROWS_PER_PAGE)))
        if not rows:
            return
        yield rows
        last_id = rows[-1].id


def _of(report: Row[Any]) -> tuple[sa.ColumnElement[bool], ...]:
    return orders.c.customer == report.customer, orders.c.day.between(report.first, report.last)
