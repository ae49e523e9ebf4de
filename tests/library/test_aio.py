"""Asynchronous code: it sends and waits for results, and its event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from celery import Celery
from celery._state import get_current_task, get_current_worker_task, pop_current_task, push_current_task
from celery.exceptions import TimeoutError as NoResultYet
from celery.result import AsyncResult
from kombu.exceptions import OperationalError

from library.support import BROKER, CONTRACT, HAS_RESULTS, IS_FIFO, module, producer_behind_faults

aio = module("aio")
app = module("service").app()
errors = module("errors")
log_fields = module("log_fields")

TICK_SECONDS = 0.02
MEASURE = f"{CONTRACT['queues'][0]['name']}.measure"

needs_results = pytest.mark.skipif(not HAS_RESULTS, reason="there is nothing to wait for")


async def longest_gap(done):
    """Return the longest time for which nothing else could run, until a future is done."""
    longest, before = 0.0, time.monotonic()
    while not done.done():
        await asyncio.sleep(TICK_SECONDS)
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    return longest


@pytest.mark.end_to_end
def test_send_when_the_broker_hangs_then_other_code_goes_on(quiet):
    async def send_and_give_up(app):
        sending = asyncio.gather(*(aio.send(app, MEASURE, "a", group="g") for _ in range(3)))
        gap = await longest_gap(asyncio.ensure_future(asyncio.wait({sending}, timeout=4)))
        hung = not sending.done()
        sending.cancel()
        await asyncio.wait({sending})
        return hung, gap

    with producer_behind_faults(quiet) as (behind, between):
        between.fault = "hang"
        hung, gap = asyncio.run(send_and_give_up(behind))
    assert hung
    assert gap < 3.5, f"the event loop stood still for {gap:.1f} s"


@pytest.mark.end_to_end
def test_send_when_the_broker_refuses_then_raises_its_error(quiet):
    with producer_behind_faults(quiet) as (behind, between):
        between.fault = "denied" if BROKER == "sqs" else "refused"
        with pytest.raises(ClientError if BROKER == "sqs" else OperationalError):
            asyncio.run(aio.send(behind, MEASURE, "a", group="g"))


def test_send_when_it_is_refused_then_raises_as_send_does(sent):
    with pytest.raises(errors.MessageGroupError):
        asyncio.run(aio.send(app, MEASURE, "a", group="two words"))
    with pytest.raises(errors.UnknownTaskError):
        asyncio.run(aio.send(app, "no.such_task"))
    assert sent == []


def test_send_hands_the_request_id_and_its_arguments_on(sent):
    async def handle(number):
        log_fields.request_id.set(f"request-{number}")
        return await aio.send(app, MEASURE, text="a", group="g", countdown=number)

    async def both():
        return await asyncio.gather(handle(1), handle(2))

    results = asyncio.run(both())
    assert {message["headers"]["request_id"] for message in sent} == {"request-1", "request-2"}
    assert {message["task_id"] for message in sent} == {result.id for result in results}
    assert [message["kwargs"] for message in sent] == [{"text": "a"}] * 2


def test_send_when_a_process_was_forked_then_has_threads_of_its_own(sent):
    asyncio.run(aio.send(app, MEASURE, "a", group="g"))
    time.sleep(0.2)  # Its thread is idle then.
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)  # It would wait for a thread of its parent.
        asyncio.run(aio.send(app, MEASURE, "b", group="g"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(sent) == 1


def test_send_in_a_task_hands_its_group_request_id_and_parent_on(sent, monkeypatch):
    record, parents = Celery.send_task, []

    def note_parent(*args, **options):
        parents.append(get_current_worker_task().request.id)
        return record(*args, **options)

    monkeypatch.setattr(Celery, "send_task", note_parent)

    async def handle():
        return await asyncio.gather(aio.send(app, MEASURE, "a"), aio.send(app, MEASURE, "b", group="own"))

    task = app.task(name="tests.handle", shared=False)(handle)
    task.push_request(
        id="7", root_id="root", called_directly=False, request_id="request", properties={"MessageGroupId": "inherited"}
    )
    push_current_task(task)
    try:
        task.run()
    finally:
        pop_current_task()
        task.pop_request()
    assert {message["headers"]["request_id"] for message in sent} == {"request"}
    assert parents == ["7", "7"]
    if IS_FIFO:
        assert {message["MessageGroupId"] for message in sent} == {"inherited", "own"}
    assert asyncio.run(aio.in_thread("send", get_current_task)) is None


@needs_results
def test_result_when_awaited_in_a_task_then_is_returned(monkeypatch):
    done = {"status": "SUCCESS", "result": 7, "task_id": "1", "children": [], "traceback": None}
    monkeypatch.setattr(app.backend, "get_task_meta", lambda *args, **options: done)
    monkeypatch.setattr(app.backend, "wait_for_pending", lambda result, **options: result.result, raising=False)
    with monkeypatch.context() as patched:
        patched.setattr("celery.result.task_join_will_block", lambda: True)  # As in a worker's task processes.
        assert asyncio.run(aio.result(AsyncResult("1", app=app), 5)) == 7


class Pending(SimpleNamespace):
    """A result that is there after some looks."""

    id = "1"
    looks = 0

    def ready(self):
        self.looks += 1
        return self.looks > self.after

    def get(self, **options):
        return self.value()


def fail():
    raise TimeoutError("of the task itself")


def test_result_when_it_is_ready_then_is_returned_or_raised():
    assert asyncio.run(aio.result(Pending(after=2, value=lambda: 7), 10)) == 7
    with pytest.raises(TimeoutError, match="of the task itself"):
        asyncio.run(aio.result(Pending(after=0, value=fail), 10))


def test_result_when_the_backend_fails_then_raises_its_error():
    class Unreachable(Pending):
        def ready(self):
            raise TimeoutError("of the backend")

    for timeout_seconds in (None, 10):
        with pytest.raises(TimeoutError, match="of the backend"):
            asyncio.run(aio.result(Unreachable(), timeout_seconds))


def test_result_when_it_does_not_come_then_asks_less_and_less_often():
    pending = Pending(after=1000, value=fail)
    with pytest.raises(NoResultYet):
        asyncio.run(aio.result(pending, 1))
    assert 3 <= pending.looks <= 7


def test_result_when_the_caller_is_cancelled_then_asks_no_more():
    pending = Pending(after=1000, value=fail)

    async def give_up():
        waiting = asyncio.ensure_future(aio.result(pending))
        await asyncio.sleep(0.2)
        waiting.cancel()
        await asyncio.wait({waiting})
        looks = pending.looks
        await asyncio.sleep(0.5)
        return waiting.cancelled() and pending.looks == looks

    assert asyncio.run(give_up())


@pytest.mark.skipif(HAS_RESULTS, reason="there are results")
def test_result_when_there_are_none_then_says_so():
    with pytest.raises(NotImplementedError):
        asyncio.run(aio.result(AsyncResult("1", app=app), 5))
    with pytest.raises(NotImplementedError):
        asyncio.run(aio.state(AsyncResult("1", app=app)))


@needs_results
@pytest.mark.end_to_end
def test_result_of_a_real_task_is_awaited(working):
    async def both():
        measured = await aio.send(working.app, MEASURE, "four", group="g")
        refused = await aio.send(working.app, MEASURE.replace("measure", "refuse"), "no", group="g")
        with pytest.raises(ValueError, match="no"):
            await aio.result(refused, 30)
        assert await aio.state(refused) == "FAILURE"
        return await aio.result(measured, 30)

    with working.reached():
        assert asyncio.run(both()) == 4
