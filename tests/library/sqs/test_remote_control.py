"""Remote control on SQS, by the table that workers read: with real workers, of which one is killed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest

from celery_aws import environment
from library.commands import Commands
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
listeners = module("brokers.sqs.listener")
Failure = module("brokers.sqs.calls").Failure
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
def test_consumer_when_cancelled_then_others_work_and_it_can_be_added(workers, tmp_path):
    name = workers.contract.celery_name(workers.queue)
    only = {"reply": True, "destination": ["one@here"]}
    with workers.reached():
        control = workers.app.control
        assert "no-such-queue" in control.add_consumer("no-such-queue", **only)[0]["one@here"]["error"]
        assert "ok" in control.cancel_consumer(name, **only)[0]["one@here"]
        done = [workers.send("stay", str(tmp_path), 0, group=f"g{number}") for number in range(4)]
        assert eventually(lambda: all(f'"{sent.id}"' in workers.log("three") for sent in done)), logs(workers)
        assert control.ping(destination=["one@here"]) == [{"one@here": {"ok": "pong"}}]
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


class Requests:
    """Stands in for the event loop, the channel and the requests of a worker, and records what they are told."""

    hub = task_consumer = channel = property(lambda self: self)
    hostname = "w@h"

    def __init__(self):
        self.paused, self.made = [], []

    def call_later(self, seconds, call, *args):
        self.made.append(("after", seconds))

    def soon(self, call, *args):
        call(*args)

    def pause(self, queues):
        self.paused.append(set(queues))

    def call(self, operation, parameters, then):
        self.made.append((operation, parameters.get("Key", parameters.get("Item"))))


@pytest.fixture
def listening(monkeypatch):
    """A worker's listener, and what it tells others."""
    app = module("service").app()
    monkeypatch.setattr(listeners, "Calls", lambda *args: told)
    monkeypatch.setitem(app.conf.broker_transport_options, "control_table", "table")
    told = Requests()
    told.app = app
    return listeners.Listener(told), told


def items(*keys, value="{}"):
    return {"Items": [{"key": {"S": key}, "value": {"S": value}} for key in keys]}


def test_table_when_it_cannot_be_read_then_workers_go_on_with_what_they_read(listening):
    one, told = listening
    name, queue = next(iter(one._names.items()))
    one._polled((), items(f"paused#{name}"))
    for _ in range(2):
        one._polled((), Failure("HTTP 503", "unavailable"))
    assert told.paused == [{queue}]
    assert told.made.count(("after", 2)) == 3  # It is read again.


def test_items_when_expired_then_workers_delete_them(listening):
    one, told = listening
    expired = items("revoked#1", "command#2")
    for item in expired["Items"]:
        item["expires_at"] = {"N": str(time.time() - 1)}
    one._polled((), expired)
    deleted = [found for operation, found in told.made if operation == "DeleteItem"]
    assert [found["key"]["S"] for found in deleted] == ["revoked#1", "command#2"]


def test_command_when_it_is_older_than_the_worker_then_is_not_carried_out(listening):
    one, told = listening
    asked = {"method": "ping", "arguments": {}, "reply_to": {"exchange": "", "routing_key": "x"}, "ticket": "x"}
    for keys in (["command#old"], ["command#old", "command#new"], ["command#new"]):
        one._polled((), items(*keys, value=json.dumps(asked)))
    assert [operation for operation, _ in told.made if operation != "after"] == ["PutItem"]


def test_worker_when_it_stops_then_reads_no_more(listening):
    one, told = listening
    one.stop()
    one.poll()
    assert not told.made


class Table:
    """Stands in for DynamoDB with one answer, and for the clock."""

    def __init__(self):
        self.now = 0.0
        self.put, self.deleted = [], []

    def put_item(self, **parameters):
        self.put.append(parameters["Item"])

    def delete_item(self, **parameters):
        self.deleted.append(parameters["Key"]["key"]["S"])

    def query(self, **parameters):
        return {"Items": [{"key": {"S": "w@h"}, "value": {"S": '{"w@h": {"ok": "pong"}}'}}]}

    def sleep(self, seconds):
        self.now += seconds

    def monotonic(self):
        return self.now

    def time(self):
        return 1_000_000


@pytest.fixture
def commanding(monkeypatch):
    """Celery's control of an application with remote control, and its table."""
    app = module("service").app()
    made = Table()
    monkeypatch.setattr(table, "time", made)
    monkeypatch.setattr(app, "contract", replace(app.contract, remote_control=True))
    control = module("brokers.sqs.control").Control(app)
    monkeypatch.setitem(control.__dict__, "table", table.ControlTable(made, "table"))
    return control, made


@pytest.mark.parametrize(
    ("options", "seconds"),
    [({}, 5), ({"timeout": 1}, 5), ({"timeout": 9}, 9), ({"destination": ["w@h"]}, 0.5), ({"limit": 1}, 0.5)],
)
def test_command_when_asked_then_waits_for_answers_and_deletes_them(commanding, options, seconds):
    control, made = commanding
    assert control.broadcast("ping", reply=True, **options) == [{"w@h": {"ok": "pong"}}]
    assert made.now == seconds
    assert made.deleted == ["w@h"]


def test_revoked_task_when_its_message_can_still_wait_then_is_kept(commanding):
    control, made = commanding
    control.revoke(["1", "2"])
    queues, app = control.app.contract.queues, control.app
    longest = max(queue.retention_seconds + app.longest_countdown_seconds(queue) for queue in queues)
    kept = {item["key"]["S"]: int(item["expires_at"]["N"]) for item in made.put[:2]}
    assert kept == dict.fromkeys(["revoked#1", "revoked#2"], 1_000_000 + longest)


def test_tasks_when_too_many_are_revoked_then_none_is(commanding):
    control, made = commanding
    with pytest.raises(errors.RefusedError, match="1001"):
        control.revoke([str(number) for number in range(1_001)])
    assert made.put == []


def test_queue_when_one_read_lacks_its_pause_then_stays_paused(listening):
    one, told = listening
    name, queue = next(iter(one._names.items()))
    for keys in ([f"paused#{name}"], [], [f"paused#{name}"], [], []):
        one._polled((), items(*keys))
    assert told.paused == [{queue}] * 4 + [set()]


def test_revoked_task_when_meant_for_one_worker_then_is_not_kept(commanding):
    control, made = commanding
    control.revoke("1", destination=["w@h"])
    (item,) = made.put
    assert item["key"]["S"].startswith("command#")


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

    monkeypatch.setattr(listeners, "Calls", lambda *args: SimpleNamespace(call=call))
    channel = SimpleNamespace(pause=lambda queues: None, soon=lambda run, command: commands.append(command["method"]))
    hub = SimpleNamespace(call_later=lambda *args: None)
    worker = {"app": service.app, "hostname": "w@h", "hub": hub}
    made = listeners.Listener(SimpleNamespace(task_consumer=SimpleNamespace(channel=channel), **worker))
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


@pytest.mark.end_to_end
def test_queues_when_the_environment_does_not_exist_then_names_its_table(service):
    commands = Commands(service)
    for line in (("queues",), ("queues", "pause", service.queue.name)):
        commands.run(*line, "--environment", "prodution", status=2)
        assert f"{CONTRACT['service']}-prodution-" in commands.errors
        assert "--environment" in commands.errors
