"""What goes into a message: its queue, its message group, its limits."""

from __future__ import annotations

import json
import math
import time
from datetime import datetime, timedelta, timezone

import celery
import pytest
from celery import Celery
from celery._state import _task_stack
from celery.exceptions import TimeoutError as NoResultYet
from celery.result import AsyncResult
from click.testing import CliRunner
from kombu.exceptions import OperationalError

from library.support import BROKER, CONTRACT, HAS_RESULTS, PROJECT, module

app = module("service").app()
sending = module("sending")
cli = module("cli")
delivery = module("delivery")
errors = module("errors")

QUEUE = app.contract.queues[0]


@app.task(name="tests.anything", typing=False)
def anything():
    """A task that takes any arguments, since it is never run."""


@app.task(name="tests.picky")
def picky(only):
    """A task that takes one argument."""


def test_group_becomes_the_message_group(sent):
    app.send(anything, "a", group="customer-7", countdown=3, key="b")
    (message,) = sent
    assert message["MessageGroupId"] == "customer-7"
    assert (list(message["args"]), message["kwargs"], message["countdown"]) == (["a"], {"key": "b"}, 3)


@pytest.mark.parametrize("group", ["with space", "ü", "x" * 129])
def test_a_group_that_is_none_is_refused(sent, group):
    with pytest.raises(ValueError, match="MessageGroupId"):
        app.send(anything, group=group)
    assert sent == []


def test_a_task_sent_by_a_task_stays_in_its_group(sent):
    anything.push_request(properties={"MessageGroupId": "customer-7", "MessageDeduplicationId": "used"})
    _task_stack.push(anything)
    try:
        app.send(anything)
        app.send(anything, group="customer-8")
    finally:
        _task_stack.pop()
        anything.pop_request()
    assert [message["MessageGroupId"] for message in sent] == ["customer-7", "customer-8"]
    assert "used" not in [message.get("MessageDeduplicationId") for message in sent]


@pytest.mark.parametrize("way", ["countdown", "eta", "text"])
def test_a_countdown_that_the_visibility_timeout_does_not_cover_is_refused(sent, way):
    longest = max(app.broker.longest_delay_seconds(QUEUE), QUEUE.max_countdown_seconds)

    def options(seconds):
        due = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        value = {"countdown": seconds, "eta": due, "text": due.isoformat()}[way]
        queue = app.amqp.queues[app.contract.celery_name(QUEUE)]
        return {"MessageGroupId": "g", "queue": queue, "countdown" if way == "countdown" else "eta": value}

    anything.apply_async(**options(longest))
    assert len(sent) == 1
    with pytest.raises(errors.CountdownTooLongError, match="Raise max_countdown_seconds") as refused:
        anything.apply_async(**options(longest + 5))
    assert ("redelivered" in str(refused.value)) == (BROKER == "sqs")
    assert len(sent) == 1


def test_chord_whose_results_never_come_is_not_waited_for_without_end(sent):
    body = anything.signature().set(queue=app.contract.celery_name(QUEUE), MessageGroupId="g")
    for kwargs in ({"result": []}, {"result": [], "interval": None, "max_retries": None}):  # As Celery sends it.
        app.send_task("celery.chord_unlock", ("group", dict(body)), kwargs)
        assert sent.pop()["kwargs"]["max_retries"] == app.contract.result_expires_seconds


@pytest.mark.parametrize(
    "given",
    [
        {"countdown": "60"},
        {"countdown": timedelta(1)},
        {"countdown": math.nan},
        {"countdown": math.inf},
        {"countdown": 10**400},
        {"eta": "noon"},
    ],
    ids=str,
)
def test_delay_when_it_is_no_number_or_time_then_is_refused(sent, given):
    with pytest.raises(errors.UnsupportedDelayError, match="a number of seconds"):
        anything.apply_async(queue=QUEUE.name, MessageGroupId="g", **given)
    assert sent == []


def test_delay_when_the_countdown_is_0_then_is_that_of_the_eta(sent):
    with pytest.raises(errors.CountdownTooLongError):
        anything.apply_async(queue=QUEUE.name, MessageGroupId="g", countdown=0, eta=app.now() + timedelta(days=30))
    assert sent == []


def test_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(errors.UnknownTaskError, match="tasks: "):
        app.send("no.such_task")


def test_find_when_the_module_belongs_to_no_queue_then_says_so():
    module = PROJECT / "src" / CONTRACT["package"] / "tasks" / "nope.py"
    module.touch()
    try:
        for name in ("nope.f", f"{CONTRACT['package']}.tasks.nope.f"):
            with pytest.raises(errors.UnknownTaskError, match=r": tasks/nope\.py belongs to no queue"):
                app.find(name)
    finally:
        module.unlink()


def test_find_when_another_module_has_the_task_then_takes_its_short_name():
    name = f"{CONTRACT['package']}.reports.draw"

    @app.task(name=name)
    def draw():
        pass

    try:
        assert app.find("reports.draw") is app.find(name)
        assert app.queue_of_task(name) is None
        with pytest.raises(errors.UnknownTaskError) as unknown:
            app.find("reports.no_such_task")
    finally:
        del app.tasks[name]
    known = str(unknown.value).partition("tasks: ")[2].split(", ")
    assert {"reports.draw", f"{QUEUE.module}.measure"} <= {*known}


def test_command_sends_json_values_and_plain_text(sent):
    result = CliRunner().invoke(cli.main, ["send", "tests.anything", "2", "plain text", "[1]", "--group", "g"])
    assert result.exit_code == 0, result.output
    assert list(sent[0]["args"]) == [2, "plain text", [1]]
    assert result.output.strip() == sent[0]["task_id"]


def no_result(*arguments, **options):
    raise NoResultYet


@pytest.mark.skipif(not HAS_RESULTS, reason="nothing to wait for")
@pytest.mark.parametrize(
    ("state", "get", "said"),
    [
        ("FAILURE", lambda *_, **__: ValueError("no"), "Error: the task failed: ValueError('no')"),
        ("RETRY", no_result, "Error: no result after 5 seconds; so far: ValueError('no')"),
        ("PENDING", no_result, "Error: no result after 5 seconds"),
    ],
)
def test_command_that_waits_tells_what_became_of_the_task(sent, monkeypatch, state, get, said):
    for name, value in {"state": state, "info": ValueError("no"), "get": get}.items():
        monkeypatch.setattr(AsyncResult, name, value)
    result = CliRunner().invoke(cli.main, ["send", "tests.anything", "--group", "g", "--wait", "5"])
    assert (result.exit_code, result.output.splitlines()[1:]) == (2, [said])


@pytest.mark.skipif(not HAS_RESULTS, reason="nothing to wait for")
def test_command_that_waits_shows_a_result_in_its_letters(sent, monkeypatch):
    said = {"said": "Gr\u00fc\u00dfe\u202e"}
    for name, value in {"state": "SUCCESS", "info": said, "get": lambda *_, **__: said}.items():
        monkeypatch.setattr(AsyncResult, name, value)
    result = CliRunner().invoke(cli.main, ["send", "tests.anything", "--group", "g", "--wait", "5"])
    assert result.output.splitlines()[1] == '{"said": "Gr\u00fc\u00dfe\\u202e"}'


@pytest.mark.skipif(HAS_RESULTS, reason="there are results to wait for")
def test_command_does_not_wait_for_what_never_comes(sent):
    result = CliRunner().invoke(cli.main, ["send", "tests.anything", "--group", "g", "--wait", "5"])
    assert (result.exit_code, sent) == (2, [])
    assert "leave out --wait" in result.output


def test_command_explains_arguments_that_do_not_fit(sent):
    result = CliRunner().invoke(cli.main, ["send", "tests.picky"])
    assert (result.exit_code, sent) == (2, [])
    assert result.output.startswith("Error: nothing was sent: picky() missing 1 required")


def test_command_explains_a_broker_out_of_reach():
    result = CliRunner().invoke(cli.main, ["send", "tests.anything", "--group", "g"])
    assert result.exit_code == 2
    assert result.output.startswith("Error: nothing was sent: ")
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["send", "no.such_task"], "unknown task 'no.such_task'; tasks: "),
        (["worker", "no-such-worker"], "no worker 'no-such-worker' in contract.json; workers: "),
        (["health", "no-such-worker"], "no worker 'no-such-worker' in contract.json; workers: "),
        (["send", "tests.anything", "--group", "two words"], "MessageGroupId must be 1 to 128"),
        (
            ["send", "tests.anything", "--group", "g", "--countdown", "99999"],
            "tests.anything was not sent: its countdown is",
        ),
    ],
)
def test_a_mistake_is_an_error_without_a_traceback(arguments, error):
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {error}")


def test_a_contract_that_is_not_there_is_an_error_without_a_traceback(monkeypatch):
    monkeypatch.setenv("CONTRACT_FILE", "nowhere.json")
    result = CliRunner().invoke(cli.main, ["contract"])
    assert result.exit_code == 2
    assert "nowhere.json" in result.output


def test_contract_command_when_run_then_shows_effective_values(monkeypatch, tmp_path):
    last = CONTRACT["queues"][-1]["name"]
    changed = {**CONTRACT, "queues": [*CONTRACT["queues"][:-1], {"name": last, "max_receive_count": 97}]}
    (tmp_path / "contract.json").write_text(json.dumps(changed))
    monkeypatch.setenv("CONTRACT_FILE", str(tmp_path / "contract.json"))
    result = CliRunner().invoke(cli.main, ["contract"])
    assert result.exit_code == 0
    # Without what continues a long name.
    shown = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if not line.startswith(" ")}
    assert shown["QUEUE"] == [queue["name"] for queue in CONTRACT["queues"]]
    assert shown["max_receive_count"] == [*["5"] * (len(CONTRACT["queues"]) - 1), "97"]
    assert shown["WORKER"] == [worker["name"] for worker in CONTRACT["workers"]]
    assert set(shown["tasks_per_child"]) == {"1000"}
    assert "acceptable_latency_seconds" in shown  # The longest that every broker has.
    if BROKER == "sqs":  # Though no section states it.
        assert set(shown["fifo"]) == {json.dumps(QUEUE.fifo)}
    as_data = json.loads(CliRunner().invoke(cli.main, ["contract", "--json"]).stdout)
    assert [queue["max_receive_count"] for queue in as_data["queues"]][-1] == 97


def test_contract_command_when_a_value_is_unusual_then_recommends(monkeypatch, tmp_path):
    changed = {**CONTRACT, "queue_defaults": {**CONTRACT["queue_defaults"], "max_receive_count": 2}}
    (tmp_path / "contract.json").write_text(json.dumps(changed))
    monkeypatch.setenv("CONTRACT_FILE", str(tmp_path / "contract.json"))
    result = CliRunner().invoke(cli.main, ["contract"])
    assert result.exit_code == 0
    assert "Recommended: queue_defaults: max_receive_count" in result.stderr


def test_serializer_that_workers_do_not_accept_is_refused_when_it_is_sent(sent):
    with pytest.raises(errors.SerializerError, match="serializer is 'pickle', but workers accept only json"):
        anything.apply_async(serializer="pickle", MessageGroupId="g")
    assert sent == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"countdown": 2_000_000}, errors.CountdownTooLongError),
        ({"queue": "no-such-queue"}, errors.UnknownQueueError),
        ({"serializer": "pickle"}, errors.SerializerError),
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["alone", "group", "chain", "link"])
def test_canvas_when_a_part_cannot_be_honoured_then_nothing_is_sent(sent, options, error, way):
    def step(**chosen):
        return app.signature("tests.anything", args=(1,)).set(MessageGroupId="g", **chosen)

    wrong = step(**options)
    canvas = {
        "alone": lambda: wrong,
        "group": lambda: celery.group([step(), wrong], app=app),
        "chain": lambda: step() | step() | wrong,
        "link": lambda: step(link=[wrong]),
    }[way]()
    with pytest.raises(error):
        canvas.apply_async(MessageGroupId="g")
    assert sent == []


def test_task_in_the_module_of_a_queue_is_routed_there_whatever_its_name():
    @app.task(name="a.name.of.its.own")
    def own():
        """Do nothing."""

    own.__module__ = f"{CONTRACT['package']}.tasks.{QUEUE.module}"
    assert sending.route_by_module(app, "a.name.of.its.own") == {"queue": app.contract.celery_name(QUEUE)}


def test_task_in_the_module_of_no_queue_is_refused_and_not_moved_in_silence(sent):
    with pytest.raises(errors.UnknownQueueError, match=r"contract.json has no queue of that name; queues: "):
        app.amqp.router.route({}, f"{CONTRACT['package']}.tasks.of_a_queue_that_was_removed.run")


@pytest.mark.parametrize("stopping", [False, True])
def test_next_step_when_there_is_no_broker_then_its_task_is_not_failed(monkeypatch, stopping):
    now = time.monotonic()
    name = app.contract.celery_name(QUEUE)
    attempt = delivery.Attempt(
        "1", QUEUE, name, 1, is_last=False, hold_until=now + delivery.RESERVE_SECONDS + 1, mark=0
    )
    attempt.store_until = now + 1
    tries = []

    def refuse(self, *args, **options):
        tries.append(args)
        raise OperationalError("no broker")

    monkeypatch.setattr(Celery, "send_task", refuse)
    monkeypatch.setattr(sending, "RETRY_SEND_AFTER_SECONDS", 0.1)
    monkeypatch.setattr(sending, "is_shutting_down", lambda: stopping)
    with pytest.raises(OperationalError):  # Of a task's own code, which is to hear of it at once.
        app.send(anything, group="a")
    monkeypatch.setattr(delivery, "current", attempt)
    with pytest.raises(delivery.Unavailable):
        app.send(anything, group="a")
    assert (len(tries) > 2) is not stopping


def test_celerys_own_command_finds_the_application():
    from celery.app.utils import find_app

    assert find_app(CONTRACT["package"]) is app
