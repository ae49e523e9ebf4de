"""Tasks that are coroutine functions: how they run, are limited and cancelled, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time

import celery
import pytest
from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery import current_task, shared_task
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from pydantic import BaseModel

import celery_aws
from library.support import HAS_RESULTS, eventually, module, notes, running_service

app = module("service").app()
coroutines = module("coroutines")
errors = module("errors")


@pytest.fixture(autouse=True)
def ended():
    """Close the event loop of each test."""
    yield
    coroutines._close()


@pytest.fixture
def task():
    """Register a task for this test, in this application only."""
    names = []

    def register(function, **options):
        names.append(f"coroutines.{function.__name__}")
        return app.task(name=names[-1], shared=False, **options)(function)

    yield register
    for name in names:
        app.tasks.pop(name, None)


# Running


def test_coroutine_when_called_in_any_way_then_its_result_is_returned(task):
    async def double(number):
        await asyncio.sleep(0)
        return 2 * number

    doubled = task(double)

    async def within():
        return [await doubled(2), await doubled.run(3)]

    assert doubled(1) == 2
    assert doubled.apply((2,)).get() == 4
    assert asyncio.run(within()) == [4, 6]


def test_coroutine_when_a_loop_runs_then_apply_is_refused(task):
    async def nothing():
        pass

    refused = task(nothing)

    async def within():
        with pytest.raises(errors.EventLoopRunningError, match=r"await nothing\(\.\.\.\)"):
            refused.apply()
        with pytest.raises(errors.EventLoopRunningError, match="await the coroutine"):
            celery_aws.run_coroutine(nothing())

    asyncio.run(within())


def test_loop_when_several_tasks_run_then_is_one_until_the_process_ends(task):
    async def loop():
        return asyncio.get_running_loop()

    of = task(loop)
    first = of()
    assert of() is first
    assert celery_aws.run_coroutine(loop()) is first
    thread: list[object] = []
    other = threading.Thread(target=lambda: thread.append(of()))
    other.start()
    other.join()
    assert thread[0] is not first
    if not os.fork():  # A child must not use the loop of its parent.
        os._exit(of() is first)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    celery.signals.worker_process_shutdown.send(sender=None, pid=0, exitcode=0)
    assert first.is_closed()
    assert of() is not first


def test_shared_and_class_based_tasks_when_async_then_run(task):
    @shared_task(name="coroutines.shared")
    async def shared(text):
        return text

    class Base(celery_aws.Task):
        name = "coroutines.class"

        async def run(self, text):
            await asyncio.sleep(0)
            return f"{self.name} {text}"

    class Derived(Base):
        name = "coroutines.derived"

        async def run(self, text):
            return f"derived {await super().run(text)}"

    try:
        made = [app.register_task(kind()) for kind in (Base, Derived)]
        assert app.tasks["coroutines.shared"].apply(("a",)).get() == "a"
        assert [each.apply(("b",)).get() for each in made] == [
            "coroutines.class b",
            "derived coroutines.derived b",
        ]
        with pytest.raises(TypeError):
            app.tasks["coroutines.shared"].apply_async(("too", "many"))
    finally:
        for name in ("shared", "class", "derived"):
            app.tasks.pop(f"coroutines.{name}", None)


def test_retry_when_by_hand_or_automatic_then_runs_again(task):
    async def by_hand(self):
        await asyncio.sleep(0)
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return self.request.retries

    runs = []

    async def automatic():
        runs.append(1)
        await asyncio.sleep(0)
        if len(runs) < 2:
            raise OSError("once more")
        return "done"

    assert task(by_hand, bind=True).apply().get() == 2
    assert task(automatic, autoretry_for=(OSError,), retry_kwargs={"countdown": 0}).apply().get() == "done"


@pytest.mark.parametrize(
    ("error", "state"), [(Ignore(), "IGNORED"), (Reject("no"), "REJECTED"), (KeyError(1), "FAILURE")]
)
def test_coroutine_when_it_raises_then_ends_like_other_tasks(task, error, state):
    async def end():
        await asyncio.sleep(0)
        raise error

    failing = task(end)
    assert failing.apply(throw=False).state == state
    with pytest.raises(type(error)):
        failing()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_loop_when_a_coroutine_aborts_then_still_runs_the_next(task, kind):
    seen = []

    async def child():
        raise kind

    async def abort(gathered):
        try:
            if gathered:
                await asyncio.gather(child(), asyncio.sleep(60))
            raise kind
        finally:
            seen.append("ended")

    aborting = task(abort)
    for gathered in (False, True):
        with pytest.raises(kind):
            aborting(gathered)
    assert seen == ["ended", "ended"]
    assert celery_aws.run_coroutine(asyncio.sleep(0, "next")) == "next"


needs_groups = pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is new in Python 3.11")


@needs_groups
@pytest.mark.parametrize(
    ("errors", "kind"), [("V", "ValueError"), ("R", "Retry"), ("VR", "Retry"), ("VV", "ExceptionGroup")]
)
def test_task_group_when_errors_are_raised_in_it_then_one_decides(task, errors, kind):
    async def fail(error):
        raise error

    async def group():
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
            outer.create_task(asyncio.sleep(0))
            for error in errors:
                inner.create_task(fail(Retry() if error == "R" else ValueError(1)))

    with pytest.raises(Exception) as raised:
        task(group)()
    assert type(raised.value).__name__ == kind


# Context


def test_context_when_coroutines_are_gathered_then_is_that_of_the_task(task):
    record = logging.LogRecord("test", logging.INFO, "", 0, "text", (), None)

    async def identify():
        await asyncio.sleep(0)
        return current_task.request.id, module("log_fields").current_request_id()

    async def gather(self):
        celery_aws.request_id.set("set in the task")
        found = await asyncio.gather(identify(), identify())
        module("logs").TaskFields().filter(record)
        return [self.request.id, *found]

    own, *others = task(gather, bind=True).apply(task_id="7").get()
    assert (own, others) == ("7", [("7", "set in the task")] * 2)
    assert (record.__dict__["task_id"], record.__dict__["request_id"]) == ("7", "7")
    assert celery_aws.request_id.get() is None  # It ends with the task.


# Limits


@pytest.fixture
def limited():
    """Call a function while the soft limit of an attempt is reached after some seconds."""
    before = signal.getsignal(SIG_SOFT_TIMEOUT)

    def call(function, *args, seconds=0.2, times=1):
        signal.signal(SIG_SOFT_TIMEOUT, soft_timeout_sighandler)
        for number in range(times):
            timer = threading.Timer(seconds * (number + 1), os.kill, (os.getpid(), SIG_SOFT_TIMEOUT))
            timer.start()
        try:
            return function(*args)
        finally:
            assert signal.getsignal(SIG_SOFT_TIMEOUT) is soft_timeout_sighandler
            timer.join()

    yield call
    signal.signal(SIG_SOFT_TIMEOUT, before)


async def _sleep():
    await asyncio.sleep(60)


async def _gather():
    await asyncio.gather(asyncio.sleep(60), asyncio.sleep(61))


async def _timeout():
    await asyncio.wait_for(asyncio.sleep(60), 61)


async def _shield():
    await asyncio.shield(asyncio.sleep(0.5))


async def _group():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))


async def _group_body():
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            await asyncio.sleep(61)
    except Exception as error:  # noqa: BLE001 - some versions of Python wrap it in a group, as `except*` expects
        raise getattr(error, "exceptions", [error])[0]  # noqa: B904


WAYS = [_sleep, _gather, _timeout, _shield, *([_group, _group_body] if sys.version_info >= (3, 11) else [])]


@pytest.mark.parametrize("wait", WAYS)
def test_soft_limit_when_reached_then_is_raised_at_the_await(task, limited, wait):
    seen = []

    async def overrun(self, catch):
        try:
            await wait()
        except SoftTimeLimitExceeded:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            seen.append([other for other in others if wait is not _shield])
            await asyncio.sleep(0.01)  # It can clean up, also by awaiting.
            if not catch:
                raise
            return "caught"
        finally:
            seen.append("ended")

    overrunning = task(overrun, bind=True)
    assert limited(overrunning, True) == "caught"
    with pytest.raises(SoftTimeLimitExceeded) as error:
        limited(overrunning, False)
    assert type(error.value) is SoftTimeLimitExceeded
    assert seen == [[], "ended"] * 2
    assert celery_aws.run_coroutine(asyncio.sleep(0, "next")) == "next"


def test_soft_limit_when_caught_then_timeouts_of_the_coroutine_still_work(task, limited):
    async def overrun():
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            assert getattr(asyncio.current_task(), "cancelling", int)() == 0
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.sleep(60), 0.05)
        try:
            await asyncio.sleep(60)
        except Exception as error:  # noqa: BLE001 - a soft limit is an Exception, as elsewhere
            return type(error).__name__.strip("_")

    assert limited(task(overrun), seconds=0.3, times=2) == "SoftLimitReached"


def test_soft_limit_when_nothing_is_awaited_then_comes_at_the_next_await(task, limited):
    seen = []

    async def block():
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            seen[:] = [end]
        seen.append("ended")
        await asyncio.sleep(60)

    with pytest.raises(SoftTimeLimitExceeded):
        limited(task(block))
    assert seen[1:] == ["ended"]


# What a task leaves behind


def test_asyncio_tasks_when_left_behind_then_are_cancelled_with_a_warning(task, caplog):
    seen = []

    async def linger(after):
        try:
            await asyncio.sleep(60)
        finally:
            if after:
                asyncio.get_running_loop().create_task(linger(False))
            await asyncio.sleep(0.05)
            seen.append("cancelled")

    async def leave():
        asyncio.get_running_loop().create_task(linger(True))
        await asyncio.sleep(0)
        return "done"

    async def kept():
        return asyncio.get_running_loop().create_task(asyncio.sleep(0.5, "kept"))

    connection = celery_aws.run_coroutine(kept())  # As a connection pool has them.
    assert task(leave)() == "done"
    assert seen == ["cancelled"] * 2
    assert "linger" in caplog.text

    async def finish():
        return len(asyncio.all_tasks()), await connection

    assert celery_aws.run_coroutine(finish()) == (2, "kept")


@pytest.mark.parametrize("way", ["break", "drop", "raise", "child"])
def test_async_generator_when_left_open_then_is_closed_with_its_task(task, caplog, way):
    seen, kept = [], []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0.01)
            seen.append("closed")

    async def leave(generator):
        async for _ in generator:
            if way == "raise":
                raise KeyError
            break

    async def left():
        if way == "break":
            kept.append(numbers())
        if way == "child":
            await asyncio.create_task(leave(numbers()))
        else:
            await leave(kept[0] if kept else numbers())

    with contextlib.suppress(KeyError):
        task(left)()
    assert seen == ["closed"]
    assert caplog.records == []


def test_async_generator_when_of_a_kept_asyncio_task_then_stays_open(task):
    go_on = asyncio.Event()

    async def numbers():
        yield 1
        yield 2

    async def read():
        await go_on.wait()
        async for number in numbers():  # noqa: B007
            await asyncio.sleep(0.2)
        return number

    async def keep():
        return asyncio.get_running_loop().create_task(read())

    async def start():
        go_on.set()
        await asyncio.sleep(0.1)

    kept = celery_aws.run_coroutine(keep())
    task(start)()
    assert celery_aws.run_coroutine(asyncio.wait_for(kept, 5)) == 2


# Refused


class Model(BaseModel):
    """An argument."""

    number: int


async def _model(model: Model) -> None:
    pass


async def _items():
    yield 1


@pytest.mark.parametrize(
    ("function", "options", "why"),
    [
        (_items, {}, "one result"),
        (_model, {"pydantic": True}, "pydantic=True"),
    ],
)
def test_coroutine_when_an_option_cannot_be_honoured_then_is_refused(task, function, options, why):
    with pytest.raises(errors.UnsupportedError, match=why):
        task(function, **options)


def test_coroutine_when_its_base_class_is_foreign_then_a_worker_refuses_it(task):
    foreign = task(_sleep, base=celery.Task)
    with pytest.raises(errors.UnsupportedError, match=r"celery_aws\.Task"):
        module("checks").check_tasks([foreign])


# With a worker


@pytest.mark.end_to_end
def test_coroutine_when_a_worker_runs_it_then_its_limits_are_enforced(tmp_path_factory, tmp_path):
    folders = [tmp_path / name for name in ("loops", "limits", "errors")]
    for folder in folders:
        folder.mkdir()
    loops, limits, failures = folders
    limit = {"soft_limit_seconds": 1, "hard_limit_seconds": 3, "max_receive_count": 1}
    with running_service(tmp_path_factory.mktemp("logs"), concurrency=1, **limit) as service:
        service.start_worker()
        first, second = (service.send("note_loop", str(loops)) for _ in range(2))
        service.send("despair_async", str(failures))
        service.send("overrun_async", str(limits), False)
        service.send("overrun_async", str(limits), True)
        assert eventually(lambda: service.dead() == 3), service.log()
        if HAS_RESULTS:
            with service.reached():
                assert [first.get(timeout=9), second.get(timeout=9)] == [first.id, second.id]
        assert len(notes(loops)) == 2
        assert len({note.suffix for note in notes(loops)}) == 1  # One loop, in one process.
        assert "Lingering" in service.log()
        assert len(notes(failures)) == 1
        assert "SoftTimeLimitExceeded" in service.log()
        # Each was told at its soft limit; the second, which went on, was killed at its hard limit.
        assert [note.suffix for note in notes(limits)] == [".soft"] * 2
        assert "TimeLimitExceeded(3" in service.log(), service.log()
        service.stop_workers(warm_seconds=60)
        assert "loop open: True" in service.log(), service.log()
