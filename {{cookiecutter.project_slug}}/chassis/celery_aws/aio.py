"""Sending, and waiting for results, in asynchronous code such as FastAPI; see docs/fastapi.md of the service.

Celery's calls block, for many seconds if the broker is unavailable. So they run in threads, and the event loop does not
wait. The threads are not those of `asyncio.to_thread`, which the rest of the application needs meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import celery
from celery import _state
from celery import current_task as _current_task
from celery.exceptions import TimeoutError as NoResultYet
from celery.result import AsyncResult

if TYPE_CHECKING:
    from .sending import Service

# The published types lack what is used here.
current_task: Any = _current_task
state_of_thread: Any = _state

T = TypeVar("T")

THREADS = 10
"""Maximum concurrent calls to the broker, the size of Celery's connection pool, and as many to the result backend.

Further calls wait.
"""

FIRST_INTERVAL_SECONDS = 0.05
LONGEST_INTERVAL_SECONDS = 2.0
INTERVAL_GROWTH = 1.5
"""How often `result` asks the result backend."""


async def send(
    app: Service[Any],
    task: celery.Task[Any, Any] | str,
    *args: Any,
    group: str | None = None,
    countdown: float | None = None,
    **kwargs: Any,
) -> AsyncResult[Any]:
    """Send one task, as `Service.send` does, with the same arguments and errors.

    The request id of the calling code goes with it; in a task, also its message group by default. If the caller is
    cancelled meanwhile, the task may be sent or not.

    Args:
        app: the application.
        task: the task, or its name as in `Service.find`.
        args: its positional arguments.
        group: its message group.
        countdown: delay in seconds.
        kwargs: its keyword arguments.

    Returns:
        A handle with the task's id.
    """
    sending = _within_current_task(app.send)
    sent: AsyncResult[Any] = await in_thread("send", sending, task, *args, group=group, countdown=countdown, **kwargs)
    return sent


def _within_current_task(function: Callable[..., T]) -> Callable[..., T]:
    """Return a function that can be called in another thread, and there has the current task of this one."""
    task = current_task._get_current_object() if current_task else None
    if task is None:
        return function
    request = task.request

    def call(*args: Any, **kwargs: Any) -> T:
        state_of_thread.push_current_task(task)
        task.request_stack.push(request)
        try:
            return function(*args, **kwargs)
        finally:
            task.request_stack.pop()
            state_of_thread.pop_current_task()

    return call


async def result(handle: AsyncResult[Any], timeout_seconds: float | None = None) -> Any:
    """Wait for a task to end, and return its return value, as `AsyncResult.get` does.

    It asks the result backend at intervals that grow from 0.05 to 2 seconds.

    Args:
        handle: what `send` returned, or `app.AsyncResult(task_id)`.
        timeout_seconds: how long to wait; without a limit by default.

    Raises:
        celery.exceptions.TimeoutError: the task has not ended in this time.
        NotImplementedError: the service keeps no results.
        Exception: the task has failed; this is its exception.
    """
    if not getattr(handle, "ignored", False):  # Nobody stores a result that is ignored.
        asking = asyncio.ensure_future(_until_ready(handle))
        try:
            await asyncio.wait({asking}, timeout=timeout_seconds)
            if not asking.done():
                raise NoResultYet(f"no result of {handle.id} within {timeout_seconds} seconds")
            asking.result()  # Raises errors of the result backend.
        finally:
            asking.cancel()
    # Other coroutines of a task go on meanwhile, so that Celery's reason against waiting in a task is none here.
    return await in_thread("result", functools.partial(handle.get, disable_sync_subtasks=False))


async def state(handle: AsyncResult[Any]) -> str:
    """Return the state of a task; `PENDING` also for an id that no task has.

    Args:
        handle: what `send` returned, or `app.AsyncResult(task_id)`.

    Raises:
        NotImplementedError: the service keeps no results.
    """
    return str(await in_thread("result", lambda: handle.state))


async def _until_ready(handle: AsyncResult[Any]) -> None:
    interval = FIRST_INTERVAL_SECONDS
    while not await in_thread("result", handle.ready):
        await asyncio.sleep(interval)
        interval = min(LONGEST_INTERVAL_SECONDS, interval * INTERVAL_GROWTH)


async def in_thread(purpose: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function in a thread, with the context variables of the caller."""
    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_threads(purpose, os.getpid()), call)


@functools.cache
def _threads(purpose: str, process_id: int) -> ThreadPoolExecutor:
    """Return the threads of a process; one that was forked has none of those of its parent."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix=f"celery-aws-{purpose}")
