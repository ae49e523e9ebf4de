"""The outbox of Django: its table, its command, and what becomes of a message when its transaction ends."""

from __future__ import annotations

import signal
import threading

import django
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections, transaction
from django.test.utils import override_settings

from celery_aws import outbox as core
from library.support import CONTRACT, PROJECT, broker, module

app = module("service").app()
errors = module("errors")

MEASURE = f"{CONTRACT['queues'][0]['name']}.measure"
QUEUE = app.contract.queues[0]
ENGINE = "django.db.backends.sqlite3"

settings.configure(
    INSTALLED_APPS=["celery_aws.outbox.django"],
    CELERY_AWS_OUTBOX_APP=f"{CONTRACT['package']}.celery.app",
    DATABASES={name: {"ENGINE": ENGINE, "NAME": PROJECT / f"{name}.sqlite3"} for name in ("default", "other")},
)
django.setup()

from celery_aws.outbox import django as outbox  # noqa: E402
from celery_aws.outbox.django.models import OutboxMessage  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _tables():
    """Create the tables as an owner does."""
    for name in connections:
        call_command("migrate", database=name, verbosity=0)
    yield
    connections.close_all()


@pytest.fixture(autouse=True)
def _empty():
    yield
    for name in connections:
        OutboxMessage.objects.using(name).all().delete()


def texts(outgoing):
    return [message["args"][0] for message in outgoing]


def no_broker(self, timeout_seconds):
    raise OSError("no broker")


def test_migrations_are_those_of_the_model():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_message_when_rolled_back_then_is_not_sent(outgoing):
    with pytest.raises(KeyError), transaction.atomic():
        outbox.send(MEASURE, "a", group="g")
        raise KeyError
    assert outbox.relay() == core.Relayed()
    assert outgoing == []


def test_message_when_committed_then_is_sent_once(outgoing):
    with transaction.atomic():
        task_id = outbox.send(MEASURE, "a", group="g", countdown=100)
        assert outgoing == []
    assert [message["task_id"] for message in outgoing] == [task_id]
    assert outbox.relay() == core.Relayed()
    assert len(outgoing) == 1


def test_message_without_a_transaction_is_sent_at_once(outgoing):
    outbox.send(MEASURE, "a", group="g")
    assert texts(outgoing) == ["a"]


def test_savepoint_when_rolled_back_then_only_the_rest_is_sent(outgoing):
    with transaction.atomic():
        outbox.send(MEASURE, "outer", group="g")
        with pytest.raises(KeyError), transaction.atomic():
            outbox.send(MEASURE, "inner", group="g")
            raise KeyError
    assert texts(outgoing) == ["outer"]


def test_message_of_another_database_is_written_there(outgoing, monkeypatch):
    monkeypatch.setattr(type(app), "batching", no_broker)
    with transaction.atomic(using="other"):
        outbox.send(MEASURE, "a", group="g", using="other")
    assert [OutboxMessage.objects.using(name).count() for name in ("default", "other")] == [0, 1]


def test_refused_message_leaves_the_transaction_usable(outgoing):
    with transaction.atomic():
        with pytest.raises(errors.MessageGroupError):
            outbox.send(MEASURE, "a", group="two words")
        outbox.send(MEASURE, "b", group="g")
    assert texts(outgoing) == ["b"]


def test_command_sends_what_waits_in_order(outgoing, monkeypatch, capsys):
    monkeypatch.setattr(core, "RETRY_AFTER_SECONDS", 0)
    with monkeypatch.context() as broken:
        broken.setattr(type(app), "batching", no_broker)
        for number in range(5):
            outbox.send(MEASURE, str(number), group="g")
    assert outgoing == []
    call_command("relay_outbox", once=True)
    assert texts(outgoing) == [*map(str, range(5))]
    assert "sent 5" in capsys.readouterr().out


def test_commit_when_earlier_messages_of_the_group_wait_then_waits_too(outgoing, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(type(app), "batching", no_broker)
        outbox.send(MEASURE, "earlier", group="g")
    outbox.send(MEASURE, "later", group="g")
    assert texts(outgoing) == ([] if QUEUE.fifo else ["later"])


@pytest.mark.parametrize("limit", [SoftTimeLimitExceeded, module("coroutines")._SoftLimitReached])
def test_commit_when_the_soft_limit_is_reached_then_raises_it(outgoing, monkeypatch, limit):
    def reach(*_):
        raise limit

    monkeypatch.setattr(module("outbox.django.rows").ModelRows, "call_in_thread", reach)
    with pytest.raises(SoftTimeLimitExceeded), transaction.atomic():
        outbox.send(MEASURE, "a", group="g")
    assert OutboxMessage.objects.count() == 1


def test_command_when_told_to_stop_then_ends(outgoing, monkeypatch):
    OutboxMessage.objects.create(**core.columns(app, MEASURE, ["a"], {}, "g", None))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    claim = module("outbox.django.rows").ModelRows.claim

    def claim_and_stop(self, *arguments):
        signal.raise_signal(signal.SIGTERM)
        return claim(self, *arguments)

    monkeypatch.setattr(module("outbox.django.rows").ModelRows, "claim", claim_and_stop)
    try:
        call_command("relay_outbox", interval=60)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert texts(outgoing) == ["a"]


class Stop(threading.Event):
    """Ends a relay after some polls, which follow each other at once."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def wait(self, timeout=None):
        self.left -= 1
        if not self.left:
            self.set()
        return self.is_set()


def test_run_when_the_connection_was_lost_then_reconnects(outgoing, monkeypatch):
    OutboxMessage.objects.create(**core.columns(app, MEASURE, ["a"], {}, "g", None))
    monkeypatch.setattr(core, "CLAIM_SECONDS", 0)
    send, lost = core._send, []

    def send_and_lose(*arguments):
        if not lost:
            lost.append(connection.connection.close())
        return send(*arguments)

    connection = connections["default"]
    monkeypatch.setattr(core, "_send", send_and_lose)
    outbox.run(stop=Stop(3))
    assert OutboxMessage.objects.count() == 0
    assert set(texts(outgoing)) == {"a"}


def test_relay_when_rows_were_claimed_or_refused_then_leaves_them(outgoing, monkeypatch):
    for text in ("a", "b"):
        OutboxMessage.objects.create(**core.columns(app, MEASURE, [text], {}, "g", None))
    OutboxMessage.objects.filter(message__contains='"a"').update(error="no such queue")
    assert outbox.relay() == core.Relayed(sent=1)
    assert texts(outgoing) == ["b"]
    OutboxMessage.objects.update(error=None, available_at=2e12)
    assert outbox.relay() == core.Relayed()


@pytest.mark.parametrize(
    "settle",
    [
        lambda rows, id_: rows.delete("ended", [id_]),
        lambda rows, id_: rows.defer("ended", [id_], 0),
        lambda rows, id_: rows.fail("ended", id_, "refused"),
    ],
    ids=["delete", "defer", "fail"],
)
def test_row_when_claimed_by_another_relay_then_is_left(settle):
    OutboxMessage.objects.create(**core.columns(app, MEASURE, ["a"], {}, "g", None))
    rows = module("outbox.django.rows").ModelRows()
    (row,) = rows.claim("of another", 1, 2, None)
    settle(rows, row.id)
    left = OutboxMessage.objects.get()
    assert (left.claimed_by, left.error, left.available_at) == ("of another", None, 2)


def test_id_when_its_row_was_deleted_then_is_not_used_again():
    ids = []
    for _ in range(2):
        written = OutboxMessage.objects.create(**core.columns(app, MEASURE, ["a"], {}, "g", None))
        ids.append(written.id)
        OutboxMessage.objects.all().delete()
    assert ids[1] > ids[0]


@pytest.mark.end_to_end
def test_message_reaches_the_broker_and_its_row_is_deleted(quiet, monkeypatch):
    monkeypatch.setattr(outbox, "find_app", lambda: quiet.app)
    with quiet.reached(), transaction.atomic():
        outbox.send(MEASURE, "a", group="g")
    assert OutboxMessage.objects.count() == 0
    assert quiet.waiting() == 1
    broker.empty(quiet, dead=False)


@pytest.mark.parametrize("path", [None, "no.module", "celery_aws.app", "celery_aws.task.Task"])
def test_setting_when_it_names_no_application_then_check_reports_it(path):
    with override_settings(CELERY_AWS_OUTBOX_APP=path), pytest.raises(SystemCheckError, match="E002"):
        call_command("check")
