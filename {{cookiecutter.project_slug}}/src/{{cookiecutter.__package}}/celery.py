"""The Celery application, where `celery --app <package>` looks for it."""

from .app import app

__all__ = ["app"]
