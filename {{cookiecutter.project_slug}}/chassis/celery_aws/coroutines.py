"""Tasks that are coroutine functions: `async def` with the decorator of any other task.

A task process has one event loop, which it keeps from task to task, so that connection pools stay usable.
It runs one task at a time, so coroutines of two tasks never run concurrently.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import contextlib
import functools
import inspect
import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, TypeVar

from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery import signals
from celery.exceptions import Retry, SoftTimeLimitExceeded

from . import errors
from .failures import describe

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLOSE_WITHIN_SECONDS = 2
"""Time for the asyncio tasks that are left when a process ends."""

_loop: asyncio.AbstractEventLoop | None = None
"""The event loop of this process, once a coroutine has run."""


def is_in_event_loop() -> bool:
    """Return whether an event loop is running in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether a function, or the one that its decorators wrap, is a coroutine function."""
    return inspect.iscoroutinefunction(inspect.unwrap(function))


def drive(task: Any) -> None:
    """Replace `run` of a task's class, if it is a coroutine function, by a function that runs the coroutine."""
    defined, function = inspect.getattr_static(task, "run"), task.run
    if is_coroutine_function(function):
        run = _driven(function)
        task.run = staticmethod(run) if isinstance(defined, staticmethod) else run


def _driven(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        """Run the coroutine; within an event loop, return it, so that it can be awaited."""
        made = function(*args, **kwargs)
        if not inspect.iscoroutine(made) or is_in_event_loop():
            return made
        return run_as_task(made)

    return run


# The event loop


def run_coroutine(coroutine: Awaitable[T]) -> T:
    """Run a coroutine on the event loop of this process, which is that of its tasks, and return its result.

    asyncio tasks that it starts stay until the process ends. They make progress while a coroutine runs.
    Outside the main thread, it runs on a temporary loop, on which clients that were opened elsewhere cannot be used.

    Raises:
        EventLoopRunningError: an event loop is running in this thread, so that the coroutine must be awaited.
    """
    if is_in_event_loop():
        if inspect.iscoroutine(coroutine):
            coroutine.close()
        raise errors.EventLoopRunningError("an event loop is running in this thread: await the coroutine instead")
    is_main = threading.current_thread() is threading.main_thread()
    result, error = (_run if is_main else asyncio.run)(_outcome(coroutine))
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def run_as_task(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine of a task: as `run_coroutine` does, with its soft limit, and ending what it leaves behind."""
    return run_coroutine(_as_task(coroutine))


async def _outcome(coroutine: Awaitable[T]) -> tuple[T | None, BaseException | None]:
    """Return the result or the error of a coroutine; some errors of an asyncio task would stop the event loop."""
    try:
        return await coroutine, None
    except BaseException as error:  # noqa: BLE001
        return None, error


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop of the process."""
    loop = _loop_of_process()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:  # SystemExit or KeyboardInterrupt of another asyncio task, or of a signal's handler.
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # It had not begun.
            loop.run_until_complete(task)
        raise


def _loop_of_process() -> asyncio.AbstractEventLoop:
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        # Connected only now, so that the service's own handlers, which may close connections, run before.
        signals.worker_process_shutdown.connect(_close, weak=False)
        atexit.register(_close)
    return _loop


def _close(**rest: Any) -> None:
    """Cancel the asyncio tasks that are left, and close the event loop."""
    global _loop
    loop, _loop = _loop, None
    if loop is None:
        return
    if left := asyncio.all_tasks(loop):
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=CLOSE_WITHIN_SECONDS))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _forget() -> None:
    global _loop
    _loop = None  # It belongs to the parent.


os.register_at_fork(after_in_child=_forget)


# One task


async def _as_task(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine of a task: with its soft limit, and without asyncio tasks that outlive it."""
    before = asyncio.all_tasks()
    running = _Interruptible(coroutine, asyncio.current_task())
    with _soft_limit(running.interrupt), _noting_generators(before - {asyncio.current_task()}) as generators:
        result, error = await _outcome(running)
        await _cancel_since(before)
        await _close_generators(generators)
        await _cancel_since(before)
    if error is not None:
        raise _decisive(error)
    return result  # type: ignore[return-value]


_ErrorGroup: Any = getattr(builtins, "BaseExceptionGroup", ())  # Since Python 3.11.


def _decisive(error: BaseException) -> BaseException:
    """Return the error that decides about the attempt: of a group, its only error, or else a `Retry` in it.

    A `TaskGroup` raises a group also for one error. A task that was sent again must not be redelivered as well.
    """
    found = list(_single_errors(error))
    if len(found) > 1:
        found = [single for single in found if isinstance(single, Retry)] or [error]
    if isinstance(found[0], _SoftLimitReached):
        return SoftTimeLimitExceeded(*found[0].args).with_traceback(found[0].__traceback__)
    return found[0]


def _single_errors(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, _ErrorGroup):
        yield error
        return
    for each in error.exceptions:
        yield from _single_errors(each)


@contextlib.contextmanager
def _noting_generators(others: set[asyncio.Task[Any]]) -> Iterator[weakref.WeakSet[AsyncGenerator[Any, Any]]]:
    """Note the async generators that start in the block, unless in other asyncio tasks."""
    found: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
    hooks = sys.get_asyncgen_hooks()

    def note(generator: AsyncGenerator[Any, Any]) -> None:
        if asyncio.current_task() not in others:
            found.add(generator)
        if hooks.firstiter is not None:
            hooks.firstiter(generator)

    sys.set_asyncgen_hooks(firstiter=note)
    try:
        yield found
    finally:
        sys.set_asyncgen_hooks(*hooks)


async def _close_generators(generators: weakref.WeakSet[AsyncGenerator[Any, Any]]) -> None:
    """Close async generators that were not read to their end."""
    for error in await asyncio.gather(*(each.aclose() for each in generators), return_exceptions=True):
        if error is not None:
            logger.warning("an async generator could not be closed: %s", describe(error), exc_info=error)


_CLOSING = "async_generator_athrow"
"""The type of what asyncio awaits to close an async generator; Python has no public name of it."""


async def _cancel_since(before: set[asyncio.Task[Any]]) -> None:
    """Cancel all asyncio tasks but some, and wait until they have ended; the hard limit applies to that, too.

    Those in which asyncio closes an async generator are not cancelled.
    """
    await asyncio.sleep(0)  # So that asyncio begins to close the generators that were just dropped.
    while left := asyncio.all_tasks() - before:
        abandoned = [task for task in left if type(task.get_coro()).__name__ != _CLOSING]
        if abandoned:
            names = ", ".join(sorted(getattr(task.get_coro(), "__qualname__", task.get_name()) for task in abandoned))
            logger.warning("asyncio tasks that the task left behind are cancelled: %s", names)
        for task in abandoned:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0)


class _SoftLimitReached(SoftTimeLimitExceeded, asyncio.CancelledError):
    """Raised in a coroutine at its `await`.

    Tasks catch it as `SoftTimeLimitExceeded`. asyncio takes it for a cancellation, and cancels what the
    coroutine waits for, such as the tasks of a `TaskGroup`.
    """


class _Interruptible:
    """Awaits a coroutine. After `interrupt`, its cancellation is raised in it as `_SoftLimitReached`."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], task: Any) -> None:
        self._coroutine = coroutine
        self._task = task
        self._is_interrupted = False
        self._has_ended = False

    def interrupt(self) -> None:
        """Raise in the coroutine at its `await`, unless it has ended."""
        if not self._has_ended:
            self._is_interrupted = True
            self._task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        resume, argument = self._coroutine.send, None
        try:
            while True:
                awaited = resume(argument)
                try:
                    argument, resume = (yield awaited), self._coroutine.send
                except BaseException as error:  # noqa: BLE001
                    argument, resume = self._translated(error), self._coroutine.throw
        except StopIteration as stop:
            return stop.value
        finally:
            self._has_ended = True

    def _translated(self, error: BaseException) -> BaseException:
        if not (self._is_interrupted and isinstance(error, asyncio.CancelledError)):
            return error
        self._is_interrupted = False
        if hasattr(self._task, "uncancel"):  # Since Python 3.11, where `asyncio.timeout` counts cancellations.
            self._task.uncancel()
        return _SoftLimitReached()


@contextlib.contextmanager
def _soft_limit(interrupt: Callable[[], None]) -> Iterator[None]:
    """Have the signal of the soft limit call a function on the event loop, instead of raising anywhere in the loop.

    Only a worker's attempt at a task, in the main thread, has such a limit.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or SIG_SOFT_TIMEOUT is None or signal.getsignal(SIG_SOFT_TIMEOUT) is not soft_timeout_sighandler:
        yield
        return
    loop = asyncio.get_running_loop()
    signal.signal(SIG_SOFT_TIMEOUT, lambda *_: loop.call_soon_threadsafe(interrupt))
    try:
        yield
    finally:
        signal.signal(SIG_SOFT_TIMEOUT, soft_timeout_sighandler)
