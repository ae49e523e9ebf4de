"""The outbox as an app of Django: add this package to INSTALLED_APPS. See docs/outbox.md of the service.

The setting `CELERY_AWS_OUTBOX_APP` has the import path of the Celery application, such as `acme_jobs.celery.app`.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, cast

import celery

from .. import INTERVAL_SECONDS, Relayed, columns, relay_committed
from .. import relay as relay_rows
from .. import run as run_rows

if TYPE_CHECKING:
    from ...sending import Service

__all__ = ["relay", "run", "send"]

APP_SETTING = "CELERY_AWS_OUTBOX_APP"


def send(
    task: celery.Task[Any, Any] | str,
    *args: Any,
    group: str | None = None,
    countdown: float | None = None,
    using: str | None = None,
    **kwargs: Any,
) -> str:
    """Write one message in the current transaction; it is sent after the commit, and not after a rollback.

    Args:
        task: the task, or its name as in `Service.find`.
        args: its positional arguments.
        group: its message group.
        countdown: delay in seconds from now.
        using: alias of the database whose transaction it is; by default the one for writing.
        kwargs: its keyword arguments.

    Returns:
        The id of the task, for `app.AsyncResult`.

    Raises:
        TypeError: the task has other parameters.
        UnknownTaskError: there is no such task.
        ValueError: the group, the countdown or the message size is invalid.
        kombu.exceptions.EncodeError: the arguments cannot be serialized.
        django.core.exceptions.ImproperlyConfigured: the setting `CELERY_AWS_OUTBOX_APP` is missing or wrong.
    """
    from django.db import transaction

    from .models import OutboxMessage
    from .rows import ModelRows

    rows, app = ModelRows(using), find_app()
    written = OutboxMessage.objects.using(rows.using).create(**columns(app, task, args, kwargs, group, countdown))
    then = functools.partial(relay_committed, app, rows, [written.task_id])
    transaction.on_commit(then, using=rows.using)
    return str(written.task_id)


def relay(using: str | None = None) -> Relayed:
    """Send the messages that wait in a database, and return what became of them."""
    from .rows import ModelRows

    return relay_rows(find_app(), ModelRows(using))


def run(
    using: str | None = None, stop: threading.Event | None = None, interval_seconds: float = INTERVAL_SECONDS
) -> None:
    """Send waiting messages until it is stopped, as the command `relay_outbox` does.

    Args:
        using: alias of the database.
        stop: set it to end.
        interval_seconds: seconds between polls of the table.
    """
    from .rows import ModelRows

    run_rows(find_app(), ModelRows(using), stop, interval_seconds)


def find_app() -> Service[Any]:
    """Return the Celery application that the setting names.

    Raises:
        django.core.exceptions.ImproperlyConfigured: the setting is missing, or names something else.
        ImportError: the setting names nothing.
    """
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.utils.module_loading import import_string

    if not (path := getattr(settings, APP_SETTING, None)):
        raise ImproperlyConfigured(f"set {APP_SETTING} to the import path of the Celery application")
    found = import_string(path)
    if not isinstance(found, celery.Celery):
        raise ImproperlyConfigured(f"{APP_SETTING} is {path!r}, which is no Celery application; try {path}.app")
    return cast("Service[Any]", found)
