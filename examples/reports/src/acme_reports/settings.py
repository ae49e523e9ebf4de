"""The environment variables of this service."""

from __future__ import annotations

from pydantic import Field, SecretStr

import celery_aws


class Settings(celery_aws.Settings):
    """The defaults are those of `make dev`; terraform/reports.tf sets the values in AWS."""

    database_url: SecretStr = Field(
        default=SecretStr("sqlite:///var/reports.db"),
        description="SQLAlchemy's URL of the database, such as postgresql+psycopg://user:password@host/name",
    )
    reports_bucket: str = Field(default="reports", description="S3 bucket of the CSV files")
    smtp_url: SecretStr = Field(
        default=SecretStr("smtp://127.0.0.1:8025"),
        description="Mail server, such as smtps://user:password@email-smtp.eu-west-1.amazonaws.com:465",
    )
    mail_from: str = Field(default="reports@example.com", description="Sender of mails")
