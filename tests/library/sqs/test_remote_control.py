"""Remote control on SQS, by the table that workers read: with real workers, of which one is killed."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from unittest import mock

import pytest

from celery_aws import environment
from library.support import (
    CONTRACT,
    HAS_RESULTS,
    VISIBILITY_TIMEOUT_SECONDS,
    eventually,
    module,
    notes,
    running_service,
)
from library.test_console import Browser

table = module("brokers.sqs.control_table")
errors = module("errors")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(
        tmp_path_factory.mktemp("control"), VISIBILITY_TIMEOUT_SECONDS, remote_control=True
    ) as service:
        yield service


@pytest.fixture(scope="module")
def workers(service):
    """Three workers of one queue, of which the second is killed once they have answered."""
    for label in ("one", "two", "three"):
        service.start_worker(label=label, extra=[f"--hostname={label}@here"])
    for label in ("one", "two", "three"):
        assert service.ready(label), service.log(label)
    assert sorted(inspected(service, "ping")) == ["one@here", "three@here", "two@here"]
    service.workers.pop("two").kill()
    return service


def inspected(service, what, *arguments, **options):
    with service.reached():
        return getattr(service.app.control.inspect(**options), what)(*arguments) or {}


def logs(service):
    return service.log("one") + service.log("three")


def command(service, *arguments):
    """Run a command of `queues`, as an operator does who has no variable of the service."""
    ran = service.python("-m", CONTRACT["package"], "queues", *arguments)
    assert not ran.stderr, ran.stderr
    return ran.stdout


@pytest.mark.end_to_end
def test_commands_when_a_worker_was_killed_then_the_others_answer(workers, service):
    assert sorted(inspected(workers, "ping")) == ["one@here", "three@here"]
    assert inspected(workers, "ping", destination=["three@here"]) == {"three@here": {"ok": "pong"}}
    (queues,) = inspected(workers, "active_queues", destination=["one@here"]).values()
    assert [queue["name"] for queue in queues] == [workers.contract.celery_name(workers.queue)]
    asked = workers.python("-m", "celery", "-A", CONTRACT["package"], "inspect", "stats", "--json")
    assert asked.returncode == 0, asked.stderr + service.log("one")
    assert sorted(json.loads(asked.stdout)) == ["one@here", "three@here"], asked.stdout
    told = f"{asked.stdout}{inspected(workers, 'conf')}"
    assert "predefined_queues" in told
    assert workers.environment["AWS_SECRET_ACCESS_KEY"] not in told


@pytest.mark.end_to_end
def test_command_when_it_fails_then_its_error_is_the_answer(workers):
    with workers.reached():
        found = workers.app.control.broadcast("no_such_command", reply=True, destination=["one@here"])
        assert "no_such_command" in found[0]["one@here"]["error"]
        found = workers.app.control.rate_limit("no.such.task", "1/s", reply=True, destination=["one@here"])
        assert "unknown task" in found[0]["one@here"]["error"]
    assert not eventually(lambda: any(workers.workers[label].poll() is not None for label in ("one", "three")), 1)


@pytest.mark.end_to_end
def test_consumer_when_cancelled_then_the_worker_answers_and_can_be_added_again(workers, tmp_path):
    name = workers.contract.celery_name(workers.queue)
    only = {"reply": True, "destination": ["one@here"]}
    with workers.reached():
        control = workers.app.control
        assert "ok" in control.cancel_consumer(name, **only)[0]["one@here"]
        assert control.ping(destination=["one@here"]) == [{"one@here": {"ok": "pong"}}]
        assert "no-such-queue" in control.add_consumer("no-such-queue", **only)[0]["one@here"]["error"]
        assert "ok" in control.add_consumer(name, **only)[0]["one@here"]
    (queues,) = inspected(workers, "active_queues", destination=["one@here"]).values()
    assert [queue["name"] for queue in queues] == [name]
    assert workers.workers["one"].poll() is None


@pytest.mark.end_to_end
def test_task_when_terminated_then_ends_revoked(workers, tmp_path):
    sent = workers.send("stay", str(tmp_path), 60)
    assert eventually(lambda: notes(tmp_path)), logs(workers)
    (active,) = [task for tasks in inspected(workers, "active").values() for task in tasks]
    assert active["id"] == sent.id
    with workers.reached():
        workers.app.control.terminate(sent.id)
        if HAS_RESULTS:
            assert eventually(lambda: workers.state(sent) == "REVOKED"), logs(workers)
    assert eventually(lambda: f'"{sent.id}"' in logs(workers) and '"outcome": "revoked"' in logs(workers))
    assert eventually(lambda: workers.waiting() == 0)


@pytest.mark.end_to_end
def test_queue_when_paused_then_no_worker_takes_its_messages(workers, tmp_path):
    name = workers.queue.name
    command(workers, "pause", name)
    shown = json.loads(command(workers, "list", "--json"))[0]
    assert shown["paused"]["by"]
    assert eventually(lambda: logs(workers).count("is paused") == 2), logs(workers)
    waiting, revoked = (workers.send("stay", str(tmp_path), 0, group=group) for group in ("g", "h"))
    with workers.reached():
        workers.app.control.revoke(revoked.id)
    # One that starts later does not take them either; all processes with the revoked ids are gone.
    for label in ("one", "three"):
        workers.workers.pop(label).kill()
    workers.start_worker(label="later")
    assert eventually(lambda: "is paused" in workers.log("later")), workers.log("later")
    assert not eventually(lambda: notes(tmp_path), VISIBILITY_TIMEOUT_SECONDS)
    command(workers, "resume", name)
    assert eventually(lambda: '"outcome": "revoked"' in workers.log("later")), workers.log("later")
    assert eventually(lambda: f'"{waiting.id}"' in workers.log("later")), workers.log("later")
    assert eventually(lambda: workers.waiting() == 0)
    assert len(notes(tmp_path)) == 1
    assert f'"{revoked.id}"' in workers.log("later")
    assert json.loads(command(workers, "list", "--json"))[0]["paused"] is None


def test_state_when_items_are_no_json_or_expired_then_says_so_or_leaves_them_out():
    items = [
        {"key": {"S": "paused#high"}, "value": {"S": "[not JSON"}},
        {"key": {"S": "paused#low"}},
        {"key": {"S": "command#1"}, "value": {"S": "[]"}},
        {"key": {"S": "command#2"}, "value": {"S": '{"method": "ping"}'}, "expires_at": {"N": str(time.time() + 60)}},
        {"key": {"S": "revoked#3"}, "expires_at": {"N": str(time.time() - 60)}},
        {"key": {"S": "revoked#4"}},
        {"key": {"S": "command#5"}, "value": {"N": "5"}},
        {"key": {"S": "command#6"}, "value": {"S": '{"__type__": "bytes", "__value__": 6}'}},
        {},
    ]
    found = table.state_of(items)
    assert found == table.State({"high": {}, "low": {}}, {"4"}, {"2": {"method": "ping"}}, ["revoked#3"])


def test_command_when_the_clock_of_its_operator_is_behind_then_is_read(monkeypatch):
    now = time.time()
    monkeypatch.setattr(table, "time", SimpleNamespace(time=lambda: now - 240))
    item = table.put("table", table.WORKERS, "command#1", {"method": "ping"}, table.COMMAND_SECONDS)["Item"]
    monkeypatch.undo()
    assert table.state_of([item]).commands == {"1": {"method": "ping"}}


@pytest.fixture
def listener(service, monkeypatch):
    """A listener whose polls answer at once with its `items`; it records commands and deletions."""
    items, commands, deleted = [], [], []

    def call(operation, parameters, then):
        if operation == "Query":
            then({"Items": items})
        else:
            deleted.append(parameters["Key"]["key"]["S"])

    module_ = module("brokers.sqs.listener")
    monkeypatch.setattr(module_, "Calls", lambda *args: SimpleNamespace(call=call))
    channel = SimpleNamespace(pause=lambda queues: None, soon=lambda run, command: commands.append(command["method"]))
    hub = SimpleNamespace(call_later=lambda *args: None)
    worker = {"app": service.app, "hostname": "w@h", "hub": hub}
    made = module_.Listener(SimpleNamespace(task_consumer=SimpleNamespace(channel=channel), **worker))
    made.poll()
    return SimpleNamespace(poll=made.poll, items=items, commands=commands, deleted=deleted)


def test_command_when_a_poll_reads_an_older_state_then_is_not_repeated(listener):
    listener.items.append(table.put("table", table.WORKERS, "command#1", {"method": "pool_grow"}, 60)["Item"])
    listener.poll()
    (command,) = listener.items
    listener.items.clear()
    listener.poll()
    listener.items.append(command)
    listener.poll()
    assert listener.commands == ["pool_grow"]


def test_items_when_many_expire_together_then_are_not_all_deleted_at_once(listener):
    listener.items += [{"key": {"S": f"revoked#{number}"}, "expires_at": {"N": "1"}} for number in range(1_000)]
    listener.poll()
    assert 0 < len(listener.deleted) <= 64


def test_answer_when_it_is_too_large_then_says_so():
    item = table.answer("table", "1", "w@h", {"w@h": "x" * 400 * 1024})["Item"]
    assert "more than" in json.loads(item["value"]["S"])["w@h"]["error"]
    assert len(json.dumps(item)) < 1_000


def test_command_when_it_is_about_events_then_is_refused(service):
    with service.reached(), pytest.raises(errors.RemoteControlUnavailableError, match="events"):
        service.app.control.enable_events()


@pytest.mark.end_to_end
def test_queue_when_paused_in_the_console_then_says_so_until_it_is_resumed(service):
    with service.reached(), mock.patch.object(module("service"), "contract", lambda: service.contract):
        browser = Browser(environment.find("development"))
        browser.log_in()
        assert "paused by" in browser.post(f"{browser.queue}/pause").text
        assert "paused by" not in browser.post(f"{browser.queue}/resume").text


@pytest.mark.end_to_end
def test_worker_when_it_cannot_read_the_table_then_ends_and_says_why(service):
    worker = service.start_worker(label="nowhere", CONTROL_TABLE="no-such-table")
    assert worker.wait(60) == 1
    assert "cannot read table no-such-table" in service.log("nowhere")
