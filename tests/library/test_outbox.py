"""The outbox: what a transaction writes is sent after its commit, also if the process dies in between."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import threading
import time
from datetime import datetime, timezone

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import EncodeError
from sqlalchemy import create_engine, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from celery_aws import outbox as core
from celery_aws.outbox import sqlalchemy as outboxes
from library.support import BROKER, CONTRACT, IS_FIFO, broker, eventually, module, producer_behind_faults

app = module("service").app()
errors = module("errors")
log_fields = module("log_fields")

MEASURE = f"{CONTRACT['queues'][0]['name']}.measure"
QUEUE = app.contract.queues[0]


@pytest.fixture
def engine(tmp_path):
    """A database that several threads and processes can use."""
    made = create_engine(f"sqlite:///{tmp_path / 'orders.db'}", connect_args={"timeout": 20})
    yield made
    made.dispose()


@pytest.fixture
def outbox(engine):
    """An outbox that relays only."""
    made = outboxes.Outbox(app, at_commit=False)
    made.metadata.create_all(engine)
    return made


@pytest.fixture
def at_once(engine, outbox):
    """An outbox with the same table that sends after each commit, too."""
    return outboxes.Outbox(app)


def write(engine, outbox, *texts, **options):
    """Write messages in one transaction, and return their ids."""
    with Session(engine) as session, session.begin():
        return [outbox.send(session, MEASURE, text, **{"group": "g", **options}) for text in texts]


def rows(engine, outbox):
    with engine.connect() as connection:
        return connection.execute(select(outbox.table).order_by(outbox.table.c.id)).all()


def texts(outgoing):
    return [message["args"][0] for message in outgoing]


def advance(monkeypatch, seconds):
    """Let somewhat more time pass."""
    later = time.time() + seconds + 1
    monkeypatch.setattr(time, "time", lambda: later)


# Written in the transaction


def test_message_when_rolled_back_then_is_not_sent(engine, outbox, at_once, outgoing):
    with Session(engine) as session:
        at_once.send(session, MEASURE, "a", group="g")
        session.flush()
        session.rollback()
    assert outbox.relay(engine) == core.Relayed()
    assert outgoing == []


def test_message_when_committed_then_is_sent_once(engine, outbox, at_once, outgoing):
    (task_id,) = write(engine, at_once, "a")
    assert [(message["task_id"], list(message["args"])) for message in outgoing] == [(task_id, ["a"])]
    assert rows(engine, outbox) == []
    assert outbox.relay(engine).sent == 0
    assert len(outgoing) == 1


def test_message_before_the_commit_is_neither_sent_nor_seen(engine, outbox, at_once, outgoing):
    with Session(engine) as session:
        at_once.send(session, MEASURE, "a", group="g")
        assert outgoing == []
        session.commit()
        assert texts(outgoing) == ["a"]
        at_once.send(session, MEASURE, "b", group="g")  # In the next transaction of the same session.
        session.commit()
    assert texts(outgoing) == ["a", "b"]


def test_savepoint_when_rolled_back_then_only_the_rest_is_sent(engine, outbox, at_once, outgoing):
    with Session(engine) as session, session.begin():
        at_once.send(session, MEASURE, "outer", group="g")
        with pytest.raises(KeyError), session.begin_nested():
            at_once.send(session, MEASURE, "inner", group="g")
            session.flush()
            raise KeyError
        with session.begin_nested():
            at_once.send(session, MEASURE, "kept", group="g")
        assert outgoing == []
    assert texts(outgoing) == ["outer", "kept"]


def test_commit_when_the_pool_has_one_connection_then_sends(tmp_path, outgoing):
    engine = create_engine(f"sqlite:///{tmp_path / 'one.db'}", pool_size=1, max_overflow=0, pool_timeout=1)
    outbox = outboxes.Outbox(app)
    outbox.metadata.create_all(engine)
    write(engine, outbox, "a")
    assert texts(outgoing) == ["a"]


def test_commit_when_its_batching_block_fails_then_has_sent(quiet, engine):
    """The block discards what was sent within it, but the row of a committed message is deleted."""
    with quiet.reached():
        outbox = outboxes.Outbox(quiet.app)
        outbox.metadata.create_all(engine)
        waiting = quiet.waiting()
        with pytest.raises(KeyError), quiet.app.batching():
            write(engine, outbox, "a")
            raise KeyError
        assert rows(engine, outbox) == []
        assert eventually(lambda: quiet.waiting() == waiting + 1)


def test_commit_when_all_connections_are_in_use_then_leaves_the_message(engine, outbox, at_once, monkeypatch):
    monkeypatch.setattr(core, "CONNECTION_WITHIN_SECONDS", 0.2)

    def commit():
        with app.batching():
            write(engine, at_once, "a")

    committing = threading.Thread(target=commit, daemon=True)
    with contextlib.ExitStack() as producers:
        for _ in range(app.producer_pool.limit - 1):
            producers.enter_context(app.producer_pool.acquire(block=True))
        committing.start()
        committing.join(8)
        assert not committing.is_alive()
    (row,) = rows(engine, outbox)
    assert (row.claimed_by, row.error) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("a",), {"group": "two words"}, errors.MessageGroupError),
        (("a",), {"group": "g", "countdown": 10**7}, errors.CountdownTooLongError),
        (("a",), {"group": "g", "countdown": "soon"}, errors.UnsupportedDelayError),
        (("a" * CONTRACT["max_message_bytes"],), {"group": "g"}, errors.MessageTooLargeError),
        (("a", "b"), {"group": "g"}, TypeError),
        ((object(),), {"group": "g"}, EncodeError),
        *([(("a",), {}, errors.MessageGroupMissingError)] if IS_FIFO else []),
    ],
    ids=str,
)
def test_message_that_cannot_be_sent_is_refused_in_the_transaction(engine, outbox, outgoing, arguments, options, error):
    with Session(engine) as session:
        with pytest.raises(error):
            outbox.send(session, MEASURE, *arguments, **options)
        outbox.send(session, MEASURE, "instead", group="g")
        session.commit()
    assert len(rows(engine, outbox)) == 1


def test_unknown_task_is_refused_in_the_transaction(engine, outbox):
    with Session(engine) as session, pytest.raises(errors.UnknownTaskError):
        outbox.send(session, "no.such_task")


def test_task_when_always_eager_then_runs_after_the_commit(engine, at_once, monkeypatch):
    monkeypatch.setitem(app.conf, "task_always_eager", True)
    ran = []

    @app.task(name="tests.eager")
    def eager(text):
        ran.append(text)

    with Session(engine) as session:
        at_once.send(session, eager, "a")
        assert ran == []
        session.commit()
    assert ran == ["a"]


@pytest.mark.end_to_end
def test_largest_message_that_is_written_can_be_sent(quiet, engine):
    outbox = outboxes.Outbox(quiet.app)
    outbox.metadata.create_all(engine)
    least, most = 1_000, CONTRACT["max_message_bytes"]
    with Session(engine) as session, quiet.reached():
        while most - least > 1:
            size = (least + most) // 2
            try:
                outbox.send(session, MEASURE, "a" * size, group="g")
            except errors.MessageTooLargeError:
                most = size
            else:
                least = size
            session.rollback()
    assert least > CONTRACT["max_message_bytes"] - 3_000
    with quiet.reached():
        write(engine, outbox, "a" * least)
        assert rows(engine, outbox) == []
    broker.empty(quiet, dead=False)


def test_message_keeps_what_belongs_to_it_until_it_is_sent(engine, outbox, outgoing):
    before = log_fields.request_id.set("request-1")
    try:
        (task_id,) = write(engine, outbox, datetime(2026, 1, 2, tzinfo=timezone.utc))
    finally:
        log_fields.request_id.reset(before)
    outbox.relay(engine)
    (message,) = outgoing
    assert (message["task_id"], list(message["args"])) == (task_id, [datetime(2026, 1, 2, tzinfo=timezone.utc)])
    assert message["headers"]["request_id"] == "request-1"
    assert message["MessageGroupId"] == "g"


def test_message_when_written_by_an_older_version_then_is_sent(engine, outbox, outgoing):
    write(engine, outbox, "a")
    (row,) = rows(engine, outbox)
    held = {name: value for name, value in json.loads(row.message).items() if name != "trace"}
    with engine.begin() as connection:
        connection.execute(outbox.table.update().values(message=json.dumps(held)))
    assert outbox.relay(engine) == core.Relayed(sent=1)


def test_countdown_counts_from_when_it_was_written(engine, outbox, outgoing):
    write(engine, outbox, "due", countdown=0.2)
    write(engine, outbox, "later", countdown=200)
    time.sleep(1.5)
    outbox.relay(engine)
    due, later = outgoing
    assert "eta" not in due and not due.get("countdown")
    left = later.get("countdown") or (later["eta"] - datetime.now(timezone.utc)).total_seconds()
    assert 190 < left < 199.5


def test_message_of_a_running_task_belongs_to_that_task(engine, outbox, outgoing):
    from celery._state import _task_stack

    task = app.find(MEASURE)
    task.push_request(id="parent", root_id="root", properties={"MessageGroupId": "customer-7"})
    _task_stack.push(task)
    try:
        write(engine, outbox, "a", group=None)
    finally:
        _task_stack.pop()
        task.pop_request()
    outbox.relay(engine)
    (message,) = outgoing
    assert (message["root_id"], message["parent_id"], message["MessageGroupId"]) == ("root", "parent", "customer-7")


# Sent after it


def test_async_session_when_committed_then_sends_and_does_not_block(tmp_path, outgoing, monkeypatch):
    pytest.importorskip("aiosqlite")
    pytest.importorskip("greenlet")
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'orders.db'}")
    outbox, relayed_only, ticks = outboxes.Outbox(app), outboxes.Outbox(app, at_commit=False), []
    batching = type(app).batching
    monkeypatch.setattr(type(app), "batching", lambda self, _: time.sleep(2.5) or batching(self))

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.02)

    async def send():
        async with engine.begin() as connection:
            await connection.run_sync(outbox.metadata.create_all)
        ticking = asyncio.ensure_future(tick())
        async with AsyncSession(engine) as session:
            outbox.send(session, MEASURE, "a", group="g")
            await session.commit()
            assert texts(outgoing) == ["a"]
            outbox.send(session, MEASURE, "b", group="g")
            await session.rollback()
            relayed_only.send(session.sync_session, MEASURE, "c", group="g")
            await session.commit()
        assert texts(outgoing) == ["a"]
        assert await relayed_only.relay_async(engine) == core.Relayed(sent=1)
        ticking.cancel()
        await engine.dispose()

    asyncio.run(send())
    assert texts(outgoing) == ["a", "c"]
    assert max(after - before for before, after in itertools.pairwise(ticks)) < 2


def break_sending(monkeypatch, error, only=None):
    """Let tasks, or one of them, not be sent."""
    from celery import Celery

    send_task = Celery.send_task

    def send(self, name, args=None, kwargs=None, *positional, **options):
        if only is None or only in args:
            raise error
        return send_task(self, name, args, kwargs, *positional, **options)

    monkeypatch.setattr(Celery, "send_task", send)


def test_commit_when_there_is_no_broker_then_succeeds_and_the_relay_sends(
    engine, outbox, at_once, outgoing, monkeypatch, caplog
):
    monkeypatch.setattr(core, "RETRY_AFTER_SECONDS", 0)
    with monkeypatch.context() as broken:
        break_sending(broken, OSError("no broker"))
        (task_id,) = write(engine, at_once, "a")
        assert outbox.relay(engine) == core.Relayed(unsent=1)
    assert "no broker" in caplog.text
    assert outbox.relay(engine) == core.Relayed(sent=1)
    assert [message["task_id"] for message in outgoing] == [task_id]


def test_commit_when_rows_cannot_be_claimed_then_succeeds(engine, at_once, outgoing, monkeypatch, caplog):
    def fail(*_):
        raise OSError("no database")

    monkeypatch.setattr(outboxes.TableRows, "claim", fail)
    write(engine, at_once, "a")
    assert "no database" in caplog.text
    assert len(rows(engine, at_once)) == 1


@pytest.mark.parametrize("limit", [SoftTimeLimitExceeded, module("coroutines")._SoftLimitReached])
def test_commit_when_the_soft_limit_is_reached_then_raises_it(engine, at_once, outgoing, monkeypatch, limit):
    def reach(*_):
        raise limit

    monkeypatch.setattr(outboxes.TableRows, "call_in_thread", reach)
    with pytest.raises(SoftTimeLimitExceeded):
        write(engine, at_once, "a")
    assert len(rows(engine, at_once)) == 1


def test_message_that_can_never_be_sent_is_marked_and_blocks_no_other(engine, outbox, outgoing, monkeypatch, caplog):
    (task_id, _) = write(engine, outbox, "a", "b")
    break_sending(monkeypatch, errors.UnknownQueueError("the queue was removed"), only="a")
    assert outbox.relay(engine) == core.Relayed(sent=1, refused=1)
    assert texts(outgoing) == ["b"]
    (left,) = rows(engine, outbox)
    assert (left.task_id, "the queue was removed" in left.error) == (task_id, True)
    assert [record.levelno for record in caplog.records if "never" in record.message] == [logging.ERROR]
    assert outbox.relay(engine) == core.Relayed()


def test_message_when_it_fails_for_now_then_only_its_group_waits(engine, outbox, outgoing, monkeypatch):
    write(engine, outbox, "a", "b")
    write(engine, outbox, "of another", group="other")
    with monkeypatch.context() as broken:
        break_sending(broken, KeyError("a bug"), only="a")
        outbox.relay(engine)
        assert set(texts(outgoing)) == ({"of another"} if QUEUE.fifo else {"b", "of another"})
    advance(monkeypatch, core.RETRY_AFTER_SECONDS)
    outbox.relay(engine)
    assert rows(engine, outbox) == []
    if QUEUE.fifo:
        assert texts(outgoing) == ["of another", "a", "b"]


def test_commit_when_earlier_messages_of_the_group_wait_then_waits_too(engine, outbox, at_once, outgoing):
    write(engine, outbox, "earlier")
    write(engine, at_once, "later")
    assert texts(outgoing) == ([] if QUEUE.fifo else ["later"])
    outbox.relay(engine)
    assert sorted(texts(outgoing)) == ["earlier", "later"]
    if QUEUE.fifo:
        assert texts(outgoing) == ["earlier", "later"]


def test_order_within_a_group_is_that_of_writing(engine, outbox, outgoing):
    written = [(str(number), f"g{number % 3}") for number in range(30)]
    for text, group in written:
        write(engine, outbox, text, group=group)
    outbox.relay(engine)
    for group in ("g0", "g1", "g2"):
        of_group = [text for text in texts(outgoing) if (text, group) in written]
        assert of_group == [text for text, of in written if of == group]


def test_relays_when_several_work_then_each_message_is_sent_once(engine, outbox, outgoing):
    write(engine, outbox, *map(str, range(20)), group="g")
    with Session(engine) as session, session.begin():
        for number in range(20, 220):
            outbox.send(session, MEASURE, str(number), group=f"g{number}")
    start = threading.Barrier(4)

    def work():
        start.wait()
        while rows(engine, outbox):
            outbox.relay(engine)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, texts(outgoing))) == list(range(220))
    if QUEUE.fifo:
        assert [text for text in texts(outgoing) if int(text) < 20] == [*map(str, range(20))]


def test_claim_when_its_process_died_then_ends_after_a_while(engine, outbox, outgoing, monkeypatch):
    write(engine, outbox, "a")
    table = outboxes.TableRows(outbox.table, engine.begin)
    assert table.claim("of the dead", time.time(), time.time() + core.CLAIM_SECONDS, None)
    assert outbox.relay(engine) == core.Relayed()
    advance(monkeypatch, core.CLAIM_SECONDS)
    assert outbox.relay(engine) == core.Relayed(sent=1)


@pytest.mark.parametrize("error", [None, OSError("no broker"), TypeError("other parameters")], ids=str)
def test_relay_when_its_claim_has_ended_then_leaves_the_row(engine, outbox, outgoing, monkeypatch, error):
    write(engine, outbox, "a")
    send = core._send

    def send_slowly(app, claimed):
        advance(monkeypatch, core.CLAIM_SECONDS)
        other = outboxes.TableRows(outbox.table, engine.begin)
        assert other.claim("of another", time.time(), time.time() + core.CLAIM_SECONDS, None)
        return {row.id: error for row in claimed} if error else send(app, claimed)

    monkeypatch.setattr(core, "_send", send_slowly)
    outbox.relay(engine)
    (row,) = rows(engine, outbox)
    assert (row.claimed_by, row.error) == ("of another", None)
    assert row.available_at > time.time()


def test_id_when_its_row_was_deleted_then_is_not_used_again(engine, outbox, at_once, outgoing):
    write(engine, outbox, "a")
    (before,) = rows(engine, outbox)
    outbox.relay(engine)
    write(engine, outbox, "b")
    (after,) = rows(engine, outbox)
    assert after.id > before.id


class Stop(threading.Event):
    """Notes how long a relay pauses, and ends it after some pauses."""

    def __init__(self, after):
        super().__init__()
        self.after, self.pauses = after, []

    def wait(self, timeout=None):
        self.pauses.append(timeout)
        if len(self.pauses) == self.after:
            self.set()
        return self.is_set()


def test_run_when_there_is_no_broker_then_tries_less_often(engine, outbox, outgoing, monkeypatch):
    monkeypatch.setattr(core, "RETRY_AFTER_SECONDS", 0)
    break_sending(monkeypatch, OSError("no broker"))
    write(engine, outbox, "a")
    stop = Stop(8)
    outbox.run(engine, stop, interval_seconds=1)
    assert stop.pauses == [2, 4, 8, 16, 30, 30, 30, 30]


def test_run_when_the_database_is_back_then_polls_as_before(engine, outbox, outgoing, monkeypatch):
    claim, claims = outboxes.TableRows.claim, []

    def fail_at_first(*args):
        claims.append(args)
        if len(claims) <= 3:
            raise OSError("no database")
        return claim(*args)

    monkeypatch.setattr(outboxes.TableRows, "claim", fail_at_first)
    stop = Stop(5)
    outbox.run(engine, stop, interval_seconds=1)
    assert stop.pauses == [2, 4, 8, 1, 1]


def test_run_when_the_soft_limit_is_reached_then_raises_it(engine, outbox, monkeypatch):
    def reach(*_):
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(outboxes.TableRows, "claim", reach)
    with pytest.raises(SoftTimeLimitExceeded):
        outbox.run(engine, Stop(1))


def test_run_when_rows_were_deferred_then_an_empty_poll_says_nothing(engine, outbox, outgoing, monkeypatch):
    break_sending(monkeypatch, OSError("no broker"))
    write(engine, outbox, "a")
    stop = Stop(3)
    outbox.run(engine, stop, interval_seconds=1)
    assert stop.pauses == [2, 2, 2]


@pytest.mark.parametrize("dialect", [postgresql, mysql, sqlite], ids=lambda dialect: dialect.__name__.split(".")[-1])
def test_claim_skips_what_others_have_locked_where_the_database_can(outbox, dialect):
    query = str(outboxes.claimable(outbox.table, 0, ["1"]).compile(dialect=dialect.dialect()))
    assert ("SKIP LOCKED" in query) is (dialect is not sqlite)


# With real processes and the broker


WRITE_AND_DIE = """
import os, signal, sys
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session
from celery_aws.outbox.sqlalchemy import Outbox
from {package}.celery import app

outbox = Outbox(app)
engine = create_engine(sys.argv[1])
with Session(engine) as session:
    event.listen(session, "after_commit", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    print(outbox.send(session, sys.argv[2], "a", group="g"), flush=True)
    session.commit()
"""


@pytest.mark.end_to_end
def test_process_when_killed_after_its_commit_then_the_relay_sends(quiet, engine):
    outbox = outboxes.Outbox(quiet.app)
    outbox.metadata.create_all(engine)
    script = WRITE_AND_DIE.format(package=CONTRACT["package"])
    killed = quiet.python("-c", script, str(engine.url), MEASURE)
    assert killed.returncode == -9, killed.stderr
    assert [row.task_id for row in rows(engine, outbox)] == killed.stdout.split()
    assert quiet.waiting() == 0
    with quiet.reached():
        assert outbox.relay(engine) == core.Relayed(sent=1)
        assert outbox.relay(engine) == core.Relayed()
    assert quiet.waiting() == 1
    broker.empty(quiet, dead=False)


@pytest.mark.end_to_end
def test_broker_when_away_at_the_commit_then_gets_the_message_later(quiet, engine, monkeypatch):
    monkeypatch.setattr(core, "RETRY_AFTER_SECONDS", 0)
    with producer_behind_faults(quiet) as (behind, between):
        outbox = outboxes.Outbox(behind)
        outbox.metadata.create_all(engine)
        write(engine, outbox, "before")
        between.fault = "503" if BROKER == "sqs" else "refused"
        if BROKER == "rabbitmq":
            between.cut()
        write(engine, outbox, "a", "b")
        assert len(rows(engine, outbox)) == 2
        between.fault = ""
        assert outbox.relay(engine).sent == 2
    assert quiet.waiting() == 3
    broker.empty(quiet, dead=False)


@pytest.mark.skipif(not IS_FIFO, reason="only FIFO queues drop duplicates")
@pytest.mark.end_to_end
def test_message_when_sent_twice_then_fifo_queues_drop_the_second(quiet, engine):
    outbox = outboxes.Outbox(quiet.app, at_commit=False)
    outbox.metadata.create_all(engine)
    write(engine, outbox, "a", "b")
    saved = rows(engine, outbox)
    with quiet.reached():
        while rows(engine, outbox):
            outbox.relay(engine)
        with engine.begin() as connection:  # As if its deletion had failed.
            connection.execute(outbox.table.insert(), [row._asdict() for row in saved])
        assert outbox.relay(engine).sent == 2
    assert quiet.waiting() == 2
    broker.empty(quiet, dead=False)
