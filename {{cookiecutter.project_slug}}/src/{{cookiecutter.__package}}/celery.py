"""The Celery application, where `celery --app <package>` looks for it."""

from __future__ import annotations

import celery_aws

from .settings import Settings

app = celery_aws.create_app(__package__, Settings)
