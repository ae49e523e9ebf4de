"""The default base class of tasks where Django is used."""

from __future__ import annotations

from typing import Any

from celery.contrib.django import task

from ..task import Task as BaseTask

DjangoTask: Any = task.DjangoTask


class Task(DjangoTask, BaseTask):  # type: ignore[misc]
    """The library's `Task` with `delay_on_commit` and `apply_async_on_commit` of Celery's task for Django."""

    abstract = True
