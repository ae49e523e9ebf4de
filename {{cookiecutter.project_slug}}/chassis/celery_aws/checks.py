"""Refuses options of tasks and workers that conflict with the delivery guarantees, instead of ignoring them."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from celery import bootsteps
from celery.concurrency import prefork
from celery.worker.request import Request as CeleryRequest
from kombu import serialization
from kombu.utils.imports import symbol_by_name

from . import errors
from .coroutines import is_coroutine_function

registry: Any = serialization.registry  # type: ignore[attr-defined]

_AT_MOST_ONCE = "for a task that must not run twice, use a queue with max_receive_count 1"

OPTIONS: tuple[tuple[str, bool, str], ...] = (
    ("acks_late", False, f"a message is always deleted after its task; {_AT_MOST_ONCE}"),
    ("acks_on_failure", True, "a failed task is redelivered; catch the error in the task if it is not a failure"),
    ("acks_on_timeout", True, "a task that exceeds its hard limit is redelivered; end it before that"),
    ("reject_on_worker_lost", False, f"a task whose process dies is redelivered; {_AT_MOST_ONCE}"),
    ("retry_on_worker_lost", True, "the broker redelivers a task whose process dies; leave the option out"),
)
"""Options of a task, the refused value, and the reason."""


REQUESTS = (CeleryRequest, "celery.worker.request:Request", f"{__package__}.consumer:Request")


def is_accepted(serializer: str | None, accepted: Collection[str]) -> bool:
    """Return whether workers accept a serializer; `accepted` has names of serializers or content types."""
    return serializer is None or serializer in accepted or registry.name_to_type.get(serializer) in accepted


def problems_of_task(task: Any) -> Iterator[str]:
    """Yield a message for each unsupported option of a task."""
    for option, refused, why in OPTIONS:
        value = getattr(task, option, None)
        if value is not None and bool(value) is refused:
            yield f"{task.name}: {option}={value!r} is not supported: {why}"
    accepted = task.app.conf.accept_content or ()
    if not is_accepted(task.serializer, accepted):
        yield f"{task.name}: serializer={task.serializer!r} is not supported: workers accept only {', '.join(accepted)}"
    yield from _problems_of_coroutine(task)
    if task.Request not in REQUESTS:
        yield f"{task.name}: a custom Request class is not supported: celery_aws sets its own for every task"


def _problems_of_coroutine(task: Any) -> Iterator[str]:
    if inspect.isasyncgenfunction(inspect.unwrap(task.run)):
        yield (
            f"{task.name}: an async generator is not supported: a task has one result. Return a list, or send a task "
            f"for each item"
        )
    if inspect.iscoroutinefunction(task.run):  # `Task` of this library has replaced it.
        yield f"{task.name}: `async def` is not supported with this base class: derive it from celery_aws.Task"
    if task._dump_pydantic_arguments and is_coroutine_function(task.run):
        yield (
            f"{task.name}: pydantic=True is not supported with `async def`: Celery would not convert the result. "
            f"Validate arguments in the task, and return model_dump(mode='json')"
        )


def check_tasks(tasks: Iterable[Any]) -> None:
    """Refuse tasks with unsupported options.

    Raises:
        UnsupportedError: lists all unsupported options.
    """
    if found := [problem for task in tasks for problem in problems_of_task(task)]:
        raise errors.UnsupportedError("\n".join(found))


class CheckWorker(bootsteps.StartStopStep):
    """Refuses a worker with an unsupported pool, broker or task, before it receives messages."""

    def __init__(self, worker: Any, **options: Any) -> None:
        from .pool import TaskPool

        super().__init__(worker, **options)
        if worker.pool_cls is prefork.TaskPool:
            worker.pool_cls = TaskPool
        if not (isinstance(worker.pool_cls, type) and issubclass(worker.pool_cls, TaskPool)):
            raise errors.UnsupportedError(
                f"the pool {worker.pool_cls.__module__} is not supported: only a process can be killed at its hard "
                f"limit, and die without the worker. Leave out --pool, and set concurrency in contract.json"
            )
        method = worker.pool_start_method
        if method != "fork":
            raise errors.UnsupportedError(
                f"worker_pool_start_method={method!r} is not supported: task processes share memory with the worker, "
                f"which requires fork. Leave it out"
            )
        transport = worker.app.connection_for_read().get_transport_cls()
        if not issubclass(transport, symbol_by_name(worker.app.broker.TRANSPORT)):
            raise errors.UnsupportedError(
                f"the broker {worker.app.conf.broker_url} is not supported: workers require the transport of "
                f"celery_aws. In tests, use the emulator or task_always_eager"
            )
        check_tasks(worker.app.tasks.values())
