"""A backend of Django's own tasks that sends them to the workers of a service. It requires Django 6.0.

Each Django task is also a Celery task whose name is its module path. So routes, logs, dead-letter messages and retries
are those of any task, and a worker runs only tasks that it has imported.
https://docs.djangoproject.com/en/stable/topics/tasks/
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Coroutine, Iterator
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from celery import shared_task, states
from celery.backends.base import DisabledBackend
from celery.utils import uuid

from ..coroutines import run_as_task
from .task import Task as CeleryTask

try:
    from asgiref.sync import sync_to_async
    from django.core import checks
    from django.db import close_old_connections
    from django.tasks import DEFAULT_TASK_QUEUE_NAME, TaskContext, TaskResultStatus, base, signals
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultDoesNotExist
    from django.utils.module_loading import import_string
    from django.utils.timezone import is_naive, make_aware
except ImportError as error:
    raise ImportError(
        f"{__name__} requires Django 6.0 or later. With an earlier one, use shared_task and delay_on_commit of Celery."
    ) from error

_STATUS = {
    states.RECEIVED: TaskResultStatus.READY,
    states.RETRY: TaskResultStatus.READY,
    states.SUCCESS: TaskResultStatus.SUCCESSFUL,
    states.FAILURE: TaskResultStatus.FAILED,
    states.REJECTED: TaskResultStatus.FAILED,
    states.REVOKED: TaskResultStatus.FAILED,
}
"""Django's status of a task, by Celery's state; of all other states, such as progress, it is RUNNING."""

_registered: set[str] = set()
"""Module paths of the Django tasks that are Celery tasks as well."""


class Result(base.TaskResult):  # type: ignore[misc]
    """The result of a task that was sent."""

    __slots__ = ()

    def refresh(self) -> None:
        """Read the result again; it is unchanged as long as the result backend has none."""
        with self._keeping_what_is_not_stored():
            super().refresh()

    async def arefresh(self) -> None:
        """Read the result again; see `refresh`."""
        with self._keeping_what_is_not_stored():
            await super().arefresh()

    @contextlib.contextmanager
    def _keeping_what_is_not_stored(self) -> Iterator[None]:
        enqueued_at = self.enqueued_at
        with contextlib.suppress(TaskResultDoesNotExist):
            yield
            object.__setattr__(self, "enqueued_at", enqueued_at)


class Task(base.Task):  # type: ignore[misc]
    """A Django task that is a Celery task as well."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Register the Celery task, unless this is a variant of a Django task, made by `using`."""
        super().__post_init__()
        if self.module_path in _registered:
            return
        _registered.add(self.module_path)

        def run(runner: Any, *args: Any, **kwargs: Any) -> Any:
            return runner.call(args, kwargs)

        run.__name__, run.__module__, run.__doc__ = self.name, self.func.__module__, self.func.__doc__
        shared_task(bind=True, base=Runner, name=self.module_path, django_task=self)(run)


class Runner(CeleryTask):
    """Runs a Django task in a worker, and sends Django's signals."""

    abstract = True
    django_task: Any = None

    def call(self, args: Any, kwargs: Any) -> Any:
        """Run one attempt at the Django task."""
        task, result = self.django_task, self._result(TaskResultStatus.RUNNING)
        signals.task_started.send(type(task.get_backend()), task_result=result)
        context = (TaskContext(task_result=result),) if task.takes_context else ()
        # Django's own `call` would run a coroutine in a thread, which the soft limit does not reach.
        returned = task.func(*context, *args, **kwargs)
        return run_as_task(_closing_connections(returned)) if inspect.iscoroutine(returned) else returned

    def on_success(self, retval: Any, *rest: Any) -> None:
        """Tell Django that the task has succeeded."""
        result = self._result(TaskResultStatus.SUCCESSFUL)
        object.__setattr__(result, "_return_value", retval)
        self._finished(result)

    def on_failure(self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        """Tell Django that the task has failed finally, not that an attempt has."""
        result = self._result(TaskResultStatus.FAILED)
        result.errors.append(_error(exc, einfo.traceback))
        self._finished(result)

    def _finished(self, result: Any) -> None:
        # The task is done, so a receiver's error cannot change its outcome; Django logs it.
        signals.task_finished.send_robust(type(result.task.get_backend()), task_result=result)

    def _result(self, status: Any) -> Any:
        """Return the result of the task in this process."""
        request: Any = self.request
        now = datetime.now(timezone.utc)
        attempt = int((request.delivery_info or {}).get("receive_count", 1))
        enqueued_at, is_running = request.get("enqueued_at"), status == TaskResultStatus.RUNNING
        return _result(
            self.django_task,
            request.id,
            status,
            request.args,
            request.kwargs,
            enqueued_at=datetime.fromisoformat(enqueued_at) if enqueued_at else None,
            started_at=now if is_running and attempt == 1 else None,
            last_attempted_at=now if is_running else None,
            finished_at=None if is_running else now,
            worker_ids=[str(request.hostname)] * attempt,
        )


async def _closing_connections(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await a coroutine; afterwards close unusable connections of the thread in which Django runs its queries."""
    try:
        return await coroutine
    finally:
        await sync_to_async(close_old_connections)()


class Backend(BaseTaskBackend):  # type: ignore[misc]
    """Sends Django's tasks to a service; `OPTIONS` has the import path of its application as `app`.

    `enqueue` sends at once, whether or not a transaction is open, as Django says of every backend.
    """

    task_class = Task
    supports_defer = True
    supports_async_task = True
    supports_priority = False

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.queues = set(params.get("QUEUES") or ())
        """The queues that tasks may name; all queues of the contract if it is empty."""
        if set(self.options) != {"app"}:
            raise InvalidTaskBackend(
                f"OPTIONS of TASKS[{alias!r}] must have the import path of the service's application as app, such as "
                f"'<package>.celery.app', and nothing else; it has: {', '.join(self.options) or 'nothing'}"
            )

    @cached_property
    def app(self) -> Any:
        """The service's application; imported late, as importing a task must not need its environment variables."""
        return import_string(self.options["app"])

    @property
    def supports_get_result(self) -> bool:
        """Whether the service keeps results, and with them the names of their tasks."""
        return not isinstance(self.app.backend, DisabledBackend) and bool(self.app.conf.result_extended)

    def check(self, **options: Any) -> list[Any]:
        """Return what `manage.py check` reports: an application that cannot be imported, unknown queues."""
        try:
            known = {queue.name for queue in self.app.contract.queues}
        except Exception as error:  # noqa: BLE001 - whatever is raised while a module of the service is imported
            return [checks.Error(f"{self.options['app']} of TASKS: {error}", id="celery_aws.E002")]
        unknown = ", ".join(sorted(self.queues - known - {DEFAULT_TASK_QUEUE_NAME}))
        hint = f"Its queues are: {', '.join(sorted(known))}"
        return [checks.Error(f"contract.json has no queue {unknown}", hint, id="celery_aws.E003")] if unknown else []

    def validate_task(self, task: Any) -> None:
        """Refuse a task that a worker would not know, or that cannot be run as it states.

        Raises:
            InvalidTask: the reason.
        """
        if not isinstance(task, Task):
            raise InvalidTask(
                f"{task.module_path} was declared for another backend, so workers do not know it. Declare it with "
                f"@task(backend={self.alias!r})."
            )
        super().validate_task(task)

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Send a task.

        Raises:
            InvalidTask: it cannot be run as it states.
            RefusedError: the queue is unknown, `run_after` is too far away, or the message group is missing.
            TypeError: an argument is not JSON.
        """
        self.validate_task(task)
        now, due = datetime.now(timezone.utc), task.run_after
        result = _result(task, uuid(), TaskResultStatus.READY, args, kwargs, enqueued_at=now, backend=self.alias)
        options: dict[str, Any] = {"task_id": result.id, "headers": {"enqueued_at": now.isoformat()}}
        if task.queue_name != DEFAULT_TASK_QUEUE_NAME:  # Otherwise the task names no queue; routes may.
            options["queue"] = task.queue_name
        if due is not None:
            options["eta"] = make_aware(due) if is_naive(due) else due  # To Celery, naive times are UTC.
        self.app.tasks[task.module_path].apply_async(result.args, result.kwargs, **options)
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Read a result from the service's result backend.

        Raises:
            NotImplementedError: the service keeps no results, or not the names of their tasks.
            TaskResultDoesNotExist: no attempt has ended or started yet, the result has expired, or the id is unknown.
        """
        if not self.supports_get_result:
            raise NotImplementedError(
                "a Django task's result can be read if `results` in contract.json is not `none` and Celery's setting "
                "result_extended is true"
            )
        stored = self.app.backend.get_task_meta(result_id)
        task = _task(stored.get("name"))
        if stored["status"] == states.PENDING or task is None:
            raise TaskResultDoesNotExist(result_id)
        status, value = _STATUS.get(stored["status"], TaskResultStatus.RUNNING), stored.get("result")
        is_finished, done = status in (TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED), stored.get("date_done")
        result = _result(
            task,
            result_id,
            status,
            stored.get("args"),
            stored.get("kwargs"),
            finished_at=datetime.fromisoformat(done) if is_finished and isinstance(done, str) else None,
            backend=self.alias,
            errors=[_error(value, stored.get("traceback"))] if isinstance(value, BaseException) else [],
            worker_ids=[stored["worker"]] if stored.get("worker") else [],
        )
        if status == TaskResultStatus.SUCCESSFUL:
            object.__setattr__(result, "_return_value", value)
        return result


def _task(path: str | None) -> Any:
    """Return the Django task with a module path; None if there is none."""
    with contextlib.suppress(ImportError):
        task = import_string(path or "")
        return task if isinstance(task, Task) else None
    return None


def _result(task: Any, result_id: str, status: Any, args: Any, kwargs: Any, **known: Any) -> Result:
    """Return a result with what is known of it; times are None unless given."""
    unknown = dict.fromkeys(("enqueued_at", "started_at", "last_attempted_at", "finished_at"))
    others = {**unknown, "backend": task.backend, "errors": [], "worker_ids": [], **known}
    return Result(task=task, id=result_id, status=status, args=list(args or ()), kwargs=dict(kwargs or {}), **others)


def _error(error: BaseException, traceback: str | None) -> Any:
    kind = type(error)
    return base.TaskError(exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=traceback or "")
