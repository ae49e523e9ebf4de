"""Celery's fixup for Django, which is installed where `DJANGO_SETTINGS_MODULE` is set.

It sets Django up before tasks are imported, and closes connections to databases and caches after each task and in each
new process.
https://docs.celeryq.dev/en/stable/django/first-steps-with-django.html
"""

from __future__ import annotations

import os
import warnings
from typing import Any

from celery.exceptions import FixupWarning
from celery.fixups import django as _fixups
from kombu.utils.objects import cached_property

from ..errors import UnsupportedError

fixups: Any = _fixups
DjangoFixup: Any = fixups.DjangoFixup
DjangoWorkerFixup: Any = fixups.DjangoWorkerFixup


def fixup(app: Any) -> Fixup | None:
    """Install the fixup if `DJANGO_SETTINGS_MODULE` is set."""
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        return None
    try:
        import django  # noqa: F401
    except ImportError:
        warnings.warn(FixupWarning(fixups.ERR_NOT_INSTALLED), stacklevel=2)
        return None
    made = Fixup(app)
    made.install()
    return made


class Fixup(DjangoFixup):  # type: ignore[misc]
    """The fixup of an application, in producers and workers."""

    def install(self) -> None:
        """Install it; tasks get methods that send when a transaction commits, and `manage.py check` checks settings."""
        from django.core import checks

        super().install()
        # Celery's fixup does the same with a class of its own, unless the application has one already.
        self.app.task_cls = f"{__package__}.task:Task"

        @checks.register  # type: ignore[untyped-decorator]
        def check_settings(app_configs: Any, **options: Any) -> list[Any]:
            """Return an error if Celery's settings in Django's contradict those of the service."""
            try:
                self.app.conf.finalize()
            except UnsupportedError as error:
                return [checks.Error(str(error), id="celery_aws.E001")]
            return []

    def on_import_modules(self, **options: Any) -> None:
        """Set Django up, unless that was done, as in a web process.

        Celery does it in workers only. This library imports tasks in producers too; setting Django up again there
        would reset its logging and the prefix of its URLs.
        """
        from django.apps import apps

        if not apps.ready:
            super().on_import_modules(**options)

    @cached_property
    def worker_fixup(self) -> WorkerFixup:
        """The fixup of a worker."""
        return WorkerFixup(self.app)


class WorkerFixup(DjangoWorkerFixup):  # type: ignore[misc]
    """Closes connections in a worker."""

    def _is_prefork(self) -> bool:
        """Return True: `CheckWorker` refuses all other pools. Celery looks for the word in the name of a module.

        Only then it closes pools of connections, which cannot be used after a fork.
        """
        return True
