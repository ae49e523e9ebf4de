"""The configuration of the Django app."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from .. import TABLE_NAME
from . import find_app


class OutboxConfig(AppConfig):  # type: ignore[misc]
    """The outbox. Its label is that of the library, so that it is found in any project."""

    name = __package__
    label = TABLE_NAME
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Have `manage.py check` look at the setting."""
        checks.register(_check)


def _check(app_configs: Any, **options: Any) -> list[checks.Error]:
    try:
        find_app()
    # ValueError: environment variables or the contract are invalid.
    except (ImproperlyConfigured, ImportError, ValueError) as error:
        return [checks.Error(str(error), id=f"{__package__.partition('.')[0]}.E002")]
    return []
