"""Tasks for the end-to-end tests, so that these outlive the examples the project began with.

Each run leaves a note: a file in `folder`, named by the time, that says in which message group it ran.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import celery
from celery import Task, current_task, shared_task
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded

import celery_aws

logger = logging.getLogger(__name__)


class HopelessError(Exception):
    """Another try is useless. Its arguments are not those of its base, so it survives no pickling."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}, because {why}")


def note(folder: str, suffix: str = "") -> None:
    """Leave a note of this run."""
    group = (current_task.request.properties or {}).get("MessageGroupId")
    (Path(folder) / f"{time.monotonic_ns()}{suffix}").write_text(str(group), encoding="utf-8")


@shared_task
def leave_trace(folder: str, fail_while: str | None = None) -> str:
    """Raise as long as the file `fail_while` is there."""
    note(folder)
    if fail_while and Path(fail_while).exists():
        raise RuntimeError(f"{fail_while} is still there")
    return "done"


@shared_task
def note_frozen(folder: str) -> None:
    """Note how many objects of this process are exempt from garbage collection."""
    note(folder, f"-{gc.get_freeze_count()}")


@shared_task
def follow(before: Any, folder: str) -> str:
    """Do something after another task."""
    note(folder)
    return "done"


@shared_task
def send_on(folder: str) -> str:
    """Send another task."""
    note(folder)
    logger.info("sending on")
    leave_trace.apply_async((folder,), queue=current_task.request.delivery_info["routing_key"])
    return "done"


@shared_task(permanent_errors=(HopelessError,))
def despair(folder: str) -> None:
    """Raise what the task declares to be permanent."""
    note(folder)
    raise HopelessError("nothing", "of nothing")


@shared_task(retry_backoff_seconds=6)
def fail_patiently(folder: str) -> None:
    """Raise, with a pause of the task's own."""
    note(folder)
    raise RuntimeError("not now")


@shared_task(autoretry_for=(OSError,), retry_kwargs={"max_retries": 5, "countdown": 1})
def retry_until(folder: str, times: int) -> str:
    """Raise until it has run so many times, and have Celery send it anew."""
    note(folder)
    if len(list(Path(folder).iterdir())) < times:
        raise OSError("once more")
    return "done"


@shared_task
def overrun(folder: str, seconds: float, stubborn: bool = False) -> str:
    """Work for some time, and if stubborn, over the soft limit."""
    note(folder, ".began")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except SoftTimeLimitExceeded:
            note(folder, ".told")
            if not stubborn:
                raise
    note(folder, ".ended")
    return "done"


@shared_task
def stay(folder: str, seconds: float) -> None:
    """Work for some time, and note in which process."""
    note(folder, f".{os.getpid()}")
    time.sleep(seconds)


@shared_task
def die_while(folder: str, obstacle: str) -> str:
    """Kill the process that runs it as long as the file `obstacle` is there."""
    note(folder)
    if Path(obstacle).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@shared_task(bind=True)
def note_times(self: Task[Any, Any], folder: str, number: int, seconds: float, failures: int = 0) -> None:
    """Note when the task of that number began and ended, by message group; fail the first deliveries."""
    began = time.monotonic()
    time.sleep(seconds)
    delivery: Any = self.request.delivery_info
    group = self.request.properties["MessageGroupId"]
    name = f"{group}.{number}.{time.monotonic_ns()}"
    (Path(folder) / name).write_text(f"{began} {time.monotonic()}", encoding="utf-8")
    if delivery["receive_count"] <= failures:
        raise RuntimeError("not yet")


@shared_task(bind=True)
def stay_or_fail(self: Task[Any, Any], folder: str, obstacle: str) -> None:
    """Raise, but stay for long on the second delivery."""
    note(folder)
    delivery: Any = self.request.delivery_info
    if delivery["receive_count"] == 2:
        time.sleep(60)
    if Path(obstacle).exists():
        raise RuntimeError("not yet")


@shared_task
def return_given(value: Any) -> Any:
    """Return what it was given."""
    return value


@shared_task(bind=True)
def work_until_cancelled(self: Task[Any, Any], folder: str) -> None:
    """Report progress until a result beside its own says that it is cancelled."""
    note(folder)
    task_id = str(self.request.id)
    for done in range(1, 600):
        self.update_state(state="PROGRESS", meta={"done": min(done, 1)})
        time.sleep(0.1)
        if self.app.AsyncResult(f"{task_id}-cancelled").ready():
            self.backend.mark_as_revoked(task_id, "cancelled", request=self.request)
            raise Ignore("cancelled")


# Results that cannot be stored


def recursive() -> list[Any]:
    """Return a list that holds itself."""
    held: list[Any] = []
    held.append(held)
    return held


UNSTORABLE = {"object": object, "recursive": recursive, "set": lambda: {1, 2}, "large": lambda: "x" * 3_000_000}


@shared_task
def return_what_cannot_be_stored(folder: str, kind: str) -> Any:
    """Return what no result backend, or not every one, can store."""
    note(folder)
    return UNSTORABLE[kind]()


@shared_task
def return_text(folder: str, characters: int) -> str:
    """Return a text of some length."""
    note(folder)
    return "x" * characters


@shared_task
def return_noise(folder: str, characters: int) -> str:
    """Return a text of some length that no compression makes small."""
    note(folder)
    return base64.b64encode(os.urandom(characters * 3 // 4)).decode()


# Ends of every kind


class BadReprError(Exception):
    """An error that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class BadPickleError(Exception):
    """An error that cannot be pickled."""

    def __init__(self, what: object) -> None:
        super().__init__(lambda: what)


class HiddenText(str):
    """A long text that is shown short."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "hidden"


ENDS: dict[str, Any] = {
    "MemoryError": lambda: MemoryError("too much"),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "BadRepr": BadReprError,
    "BadPickle": lambda: BadPickleError(1),
    "Huge": lambda: ValueError("x" * 5_000_000),
    "Wide": lambda: ValueError("\N{GRINNING FACE}" * 19_900),
    "Hidden": lambda: ValueError(HiddenText("x" * 3_000_000)),
    "Retry": lambda: Retry("by hand"),
    "Reject": lambda: Reject("not this one", requeue=False),
    "Reject with an error": lambda: Reject(ValueError("why"), requeue=False),
    "Reject and requeue": lambda: Reject("not now", requeue=True),
    "Recursion": lambda: RecursionError("too deep"),
}


@shared_task
def end_with(folder: str, kind: str) -> None:
    """Raise what the name says."""
    note(folder)
    raise ENDS[kind]()


@shared_task
def ignore() -> None:
    """Have Celery ignore the outcome."""
    raise Ignore


@shared_task
def fail_silenced(folder: str) -> None:
    """Close standard error, where the log goes, and raise."""
    note(folder)
    if sys.__stderr__ is not None:
        sys.__stderr__.close()
    raise ValueError("the reason")


@shared_task
def fork(folder: str) -> None:
    """Return twice, in this process and in a child."""
    note(folder)
    if os.fork():
        os.wait()


@shared_task
def die_in_errback(request: Any, error: Any, traceback: Any) -> None:
    """Kill the process, as the system does that has no memory left; called in the process of the task that failed."""
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def hang_in_errback(request: Any, error: Any, traceback: Any) -> None:
    """Never end."""
    time.sleep(600)


@shared_task
def exit_now(folder: str) -> None:
    """End the process as C code does."""
    note(folder)
    os._exit(7)


@shared_task(bind=True)
def retry_in(self: Task[Any, Any], folder: str, seconds: float) -> None:
    """Ask for a retry, once."""
    note(folder)
    if self.request.retries == 0:
        raise self.retry(countdown=seconds)


@shared_task(autoretry_for=(OSError,), retry_backoff=50_000, retry_backoff_max=50_000, retry_jitter=False)
def retry_with_long_backoff(folder: str) -> None:
    """Raise what has Celery send it anew much later."""
    note(folder)
    raise OSError("not now")


@shared_task(bind=True)
def tell_progress(self: Task[Any, Any], folder: str) -> str:
    """Tell how far it is, twice."""
    note(folder)
    for done in (1, 2):
        self.update_state(state="PROGRESS", meta={"done": done})
    return "done"


@shared_task
def call_others(folder: str, others: str) -> str:
    """Call another task as a function, and run it in place, before it fails once."""
    leave_trace(others)
    leave_trace.apply((others,))
    return _fail_once(folder)


@shared_task
def end_by_signal(folder: str) -> None:
    """Get what a stopping worker sends to its processes, from elsewhere."""
    note(folder)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


# A worker whose main process is looked at, and whose task processes start slowly


@celery.signals.worker_ready.connect
def _count_timers(sender: Any, **rest: Any) -> None:
    """Note again and again how many timers the event loop has, if somebody wants to know."""
    if path := os.environ.get("COUNT_TIMERS"):

        def count() -> None:
            while True:
                Path(path).write_text(str(len(sender.timer)), encoding="utf-8")
                time.sleep(0.2)

        threading.Thread(target=count, daemon=True).start()


@celery.signals.worker_process_init.connect
def _start_slowly(**rest: Any) -> None:
    time.sleep(float(os.environ.get("START_SECONDS", "0")))


# Tasks of other bases


class PlainBase(celery.Task):  # type: ignore[type-arg]
    """A base as libraries bring it."""


class CallingBase(celery.Task):  # type: ignore[type-arg]
    """A base that wraps each run, as those of web frameworks do."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run within something."""
        return self.run(*args, **kwargs)


class HookedBase(celery.Task):  # type: ignore[type-arg]
    """A base whose hooks raise."""

    def on_failure(self, *args: Any) -> None:
        """Raise."""
        raise RuntimeError("hook")

    on_retry = on_success = after_return = on_failure


class StumblingBase(celery.Task):  # type: ignore[type-arg]
    """A base that fails before the task begins, at its first attempt."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Raise at first."""
        if self.request.delivery_info["receive_count"] == 1:
            raise RuntimeError("not ready")


@shared_task(base=PlainBase)
def fail_once_plain(folder: str) -> str:
    """Fail at the first attempt."""
    return _fail_once(folder)


@shared_task(base=CallingBase)
def fail_once_calling(folder: str) -> str:
    """Fail at the first attempt."""
    return _fail_once(folder)


@shared_task(base=HookedBase)
def fail_once_hooked(folder: str) -> str:
    """Fail at the first attempt."""
    return _fail_once(folder)


@shared_task(base=HookedBase)
def fail_hooked(folder: str) -> str:
    """Fail."""
    note(folder)
    raise RuntimeError("always")


@shared_task(base=StumblingBase)
def stumble(folder: str) -> str:
    """Succeed, once it may begin."""
    note(folder)
    return "done"


class FailOnce(celery.Task):  # type: ignore[type-arg]
    """A task that is a class."""

    name = "library.probes.fail_once_class"

    def run(self, folder: str) -> str:
        """Fail at the first attempt."""
        return _fail_once(folder)


@celery.signals.worker_init.connect
def _register_class(sender: Any, **rest: Any) -> None:
    sender.app.register_task(FailOnce())


def _fail_once(folder: str) -> str:
    note(folder, f".redelivered={current_task.request.delivery_info['redelivered']}")
    if current_task.request.delivery_info["receive_count"] == 1:
        raise RuntimeError("at first")
    return "done"


# What follows a task


@shared_task
def mark(before: Any, folder: str, suffix: str) -> None:
    """Leave a mark: a link or an errback ran."""
    note(folder, suffix)


@shared_task
def die_after_settling(folder: str) -> str:
    """Succeed, and have the process die when that is stored."""
    note(folder)
    celery.signals.task_success.connect(_die, weak=False)
    return "done"


def _die(sender: Any, **rest: Any) -> None:
    # An earlier attempt may have left its process alive, with this connected, to a task of another test.
    if sender.name in (die_after_settling.name, fail_and_die.name):
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def fail_and_die(folder: str) -> str:
    """Fail, and have the process die when that is stored."""
    note(folder)
    celery.signals.task_failure.connect(_die, weak=False)
    raise RuntimeError("always")


@shared_task(throws=(RuntimeError,))
def exit_python(folder: str) -> None:
    """End the interpreter."""
    note(folder)
    sys.exit("bye")


# Coroutines


class Lingering:
    """What a coroutine leaves behind."""

    loop: asyncio.AbstractEventLoop | None = None

    @staticmethod
    async def stay() -> None:
        """Outlive its task, unless it is cancelled."""
        await asyncio.sleep(60)


@shared_task(bind=True)
async def note_loop(self: Task[Any, Any], folder: str) -> str:
    """Note on which loop it runs, and leave a coroutine there."""
    background = asyncio.get_running_loop().create_task(Lingering.stay())
    Lingering.loop = background.get_loop()
    await asyncio.sleep(0)
    note(folder, f".{id(background.get_loop())}-{os.getpid()}")
    return str(self.request.id)


@shared_task
async def overrun_async(folder: str, stubborn: bool) -> None:
    """Wait for longer than the limits."""
    while True:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            note(folder, ".soft")
            if not stubborn:
                raise


@shared_task(permanent_errors=(HopelessError,))
async def despair_async(folder: str) -> None:
    """Raise what the task declares to be permanent."""
    await asyncio.sleep(0)
    note(folder)
    raise HopelessError("nothing", "of nothing")


@celery.signals.worker_process_shutdown.connect
def tell_whether_the_loop_is_open(**rest: Any) -> None:
    """Use the loop once more, as a service does that closes its connections; only where `note_loop` has run."""
    if Lingering.loop:
        celery_aws.run_coroutine(asyncio.sleep(0))
        print(f"loop open: {not Lingering.loop.is_closed()}", flush=True)
