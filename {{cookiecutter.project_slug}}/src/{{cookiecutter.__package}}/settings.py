"""The environment variables of this service."""

from __future__ import annotations

import celery_aws


class Settings(celery_aws.Settings):
    """Add your own variables as fields, in lower case. They are validated at start, together with those of the chassis.

    For example, with `from pydantic import Field, SecretStr`:

        database_url: SecretStr = Field(description="URL of the orders database")
    """
