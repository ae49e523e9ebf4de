"""The environment variables of this service."""

from __future__ import annotations

import celery_aws


class Settings(celery_aws.Settings):
    """Your own stand here, by their lower-case names; they are checked at start, together with those of the chassis.

    For example, with `from pydantic import Field, SecretStr`:

        database_url: SecretStr = Field(description="Where orders are kept")
    """
