"""Prepares development and tests: creates the tables, the emulated bucket and some orders.

In AWS, Terraform creates the bucket, and the tables belong into migrations, such as those of Alembic.
"""

from __future__ import annotations

from datetime import date, timedelta

import boto3

from . import database
from .celery import app

ORDERS = 1000


def main() -> None:
    """Create what is missing."""
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=app.settings.reports_bucket)
    database.metadata.create_all(database.engine)
    add_orders()


def add_orders() -> None:
    """Add a customer with three orders on most days of 2026, unless there is one."""
    if not database.insert(database.customers, name="Ann", mail="ann@example.com"):
        return
    first = date(2026, 1, 1)
    rows = [{"customer": "Ann", "day": first + timedelta(days=n // 3), "cents": 100 + n} for n in range(ORDERS)]
    with database.engine.begin() as db:
        db.execute(database.orders.insert(), rows)


if __name__ == "__main__":
    main()
