"""The console: its pages, what it refuses, and what it does with dead-letter messages."""

from __future__ import annotations

import functools
import importlib
import json
import re
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner
from werkzeug.test import TestResponse

from celery_aws import attempts, environment
from celery_aws.console import make_app
from celery_aws.console.text import editable, readable
from celery_aws.contract import Schedule
from celery_aws.dlq import find
from library.commands import Commands
from library.support import BROKER, CONTRACT, IS_FIFO, broker, eventually, module, renamed

messages = importlib.import_module(f"library.{BROKER}.messages")

pytestmark = pytest.mark.end_to_end

HOSTILE = "<script>alert(1)</script>&amp;\N{RIGHT-TO-LEFT OVERRIDE}\ud800{{ 7 * 7 }}'\""
TOKEN = "a-token"
ORIGIN = "http://127.0.0.1:8765"
EVERY_ACTION = ("resend", "redrive", "purge", "messages/1/edit", "pause", "resume")


class Browser:
    """Asks the console as a browser does."""

    def __init__(self, env, *, read_only=False):
        self.client = make_app(env, TOKEN, read_only=read_only).test_client()
        self.queue = f"/queues/{env.contract.queues[0].name}"

    def log_in(self):
        answer = self.get(f"/?token={TOKEN}")
        assert answer.status_code == 200
        with self.client.session_transaction(base_url=ORIGIN) as session:
            self.csrf = session["csrf"]
        return answer

    def get(self, path, **options):
        return self.client.get(path, base_url=options.pop("base_url", ORIGIN), **options)

    def text(self, path, status=200):
        answer = self.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    def post(self, path, headers=None, csrf=None, **form) -> TestResponse:
        data = {"csrf": self.csrf if csrf is None else csrf, **form}
        headers = {"Origin": ORIGIN} if headers is None else headers
        return self.client.post(path, base_url=ORIGIN, headers=headers, data=data, follow_redirects=True)


@pytest.fixture
def env(quiet, monkeypatch):
    """The environment of a service without a worker."""
    if BROKER == "sqs":
        monkeypatch.setattr("celery_aws.dlq.sqs.queue.WAIT_SECONDS", 0)
    with quiet.reached():
        yield environment.find("development")


@pytest.fixture
def browser(env):
    browser = Browser(env)
    browser.log_in()
    return browser


@pytest.fixture
def put(quiet):
    """Empty the first queue and its dead-letter queue, and return a function that puts a message into the latter."""
    for dead in (True, False):
        broker.empty(quiet, dead=dead)
    return functools.partial(put_into, quiet)


def put_into(
    service,
    task="library.probes.leave_trace",
    argument=0,
    reason="ValueError('no')",
    traceback="trace",
    task_id="00000007-aaaa",
):
    """Put a message into the dead-letter queue of the first queue."""
    if BROKER == "rabbitmq":
        reasons = {"FailureException": reason, "FailureTraceback": traceback}
        body = messages.celery_body(0).replace('"argument 0"', json.dumps(argument))
        headers = {"task": task, "id": task_id, "retries": 0, "MessageGroupId": "g", **reasons}
        messages.put(service, [body], headers=headers, content_type="application/json", content_encoding="utf-8")
    else:
        body = json.loads(messages.celery_body(7, task))
        body["headers"]["id"] = task_id
        body["body"] = body["body"].replace('"argument 7"', json.dumps(argument))
        reasons = {"FailureException": reason, "FailureTraceback": traceback}
        attributes = {name: {"DataType": "String", "StringValue": value} for name, value in reasons.items()}
        messages.put(service, [json.dumps(body)], MessageAttributes=attributes)


def only_key(browser):
    (key,) = re.findall(rf'href="{browser.queue}/messages/([0-9a-f]+)"', browser.text(browser.queue))
    return key


def test_request_when_it_has_no_cookie_then_is_refused(env):
    stranger = Browser(env)
    for path in ("/", "/tasks", "/schedules", "/queues/x", "/?token=wrong", "/?token=%C3%A9"):
        assert "error" not in stranger.text(path, 403).lower()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8765", "[::1]"])
def test_request_when_its_host_is_another_name_then_is_refused(browser, host):
    for path in ("/schedules", f"/?token={TOKEN}"):  # The cookie of this name is not sent to another.
        assert browser.get(path, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("action", EVERY_ACTION)
@pytest.mark.parametrize(
    ("headers", "csrf"),
    [
        ({}, None),
        ({"Origin": "null"}, None),
        ({"Origin": "http://127.0.0.1:9999"}, None),
        ({"Origin": "http://evil.example"}, None),
        ({"Origin": ORIGIN}, ""),
        ({"Origin": ORIGIN}, "\N{SNOWMAN}"),
    ],
)
def test_change_when_from_another_site_then_is_refused(browser, action, headers, csrf):
    assert browser.post(f"{browser.queue}/{action}", headers=headers, csrf=csrf).status_code == 403


@pytest.mark.parametrize("action", EVERY_ACTION)
def test_change_when_read_only_then_is_refused_and_not_offered(env, put, quiet, action):
    put()
    browser = Browser(env, read_only=True)
    browser.log_in()
    assert "<button" not in browser.text("/")
    assert "<button" not in browser.text(browser.queue).replace("<button>Filter", "")
    assert "<button" not in browser.text(f"{browser.queue}/messages/{only_key(browser)}")
    assert browser.post(f"{browser.queue}/{action}").status_code == 403
    assert quiet.dead() == 1


def test_every_action_when_asked_with_get_then_changes_nothing(browser, put, quiet):
    put()
    for action in EVERY_ACTION:
        assert browser.get(f"{browser.queue}/{action}").status_code == 405
    assert quiet.dead() == 1


def test_pages_when_answered_then_allow_no_scripts_and_no_frames(env):
    answer = Browser(env).log_in()
    headers = answer.headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "SameSite=Strict" in headers["Set-Cookie"]


def test_pages_when_content_is_hostile_then_show_it_as_text(browser, put, quiet):
    printable = HOSTILE.replace("\ud800", "")  # Brokers accept no surrogates outside of JSON.
    task_id = printable if BROKER == "rabbitmq" else HOSTILE
    put(task=printable, argument=HOSTILE, reason=printable, task_id=task_id)
    for page in (browser.text(browser.queue), browser.text(f"{browser.queue}/messages/{only_key(browser)}")):
        assert "<script" not in page
        assert "{{ 7 * 7 }}" in page
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
        assert "&lt;script&gt;" in page


def test_arguments_when_not_printable_then_survive_the_form():
    shown = editable(json.dumps([HOSTILE, "a\nb", "ü"]))
    assert readable(shown) == shown
    assert "ü" in shown
    assert json.loads(shown) == [HOSTILE, "a\nb", "ü"]


def test_overview_shows_what_the_queues_hold(browser, put, quiet):
    put()
    assert eventually(lambda: "1 dead-letter message of" in browser.text("/"))  # RabbitMQ counts late.
    assert "look here" in browser.text("/")


@pytest.mark.usefixtures("put")  # Which connects, so that the queue exists on RabbitMQ.
def test_queue_when_paused_by_a_button_then_says_so_until_it_is_resumed(browser):
    if BROKER == "sqs":  # With remote control: see sqs/test_remote_control.py.
        assert "/pause" not in browser.text("/")
        assert "remote_control" in browser.post(f"{browser.queue}/pause").text
        return
    browser.post(f"{browser.queue}/pause")
    assert "paused by" in browser.text("/")
    browser.post(f"{browser.queue}/resume")
    assert "paused by" not in browser.text("/")


def test_queue_when_looked_at_then_keeps_its_messages_visible(browser, put, quiet):
    put()
    for _ in range(3):
        only_key(browser)
    assert messages_visible(quiet) == 1


def messages_visible(service):
    if BROKER == "rabbitmq":
        return messages.visible(service)
    name = "ApproximateNumberOfMessages"
    url = service.url(dead=True)
    found = service.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[name])
    return int(found["Attributes"][name])


def test_filter_when_it_names_another_task_then_hides_the_message(browser, put, quiet):
    put()
    assert "00000007-aaaa" in browser.text(f"{browser.queue}?task=probes.leave_trace&id=00000007")
    assert "00000007-aaaa" not in browser.text(f"{browser.queue}?task=other")
    assert "00000007-aaaa" not in browser.text(f"{browser.queue}?age=1h")


def test_resend_when_arguments_are_edited_then_sends_those(browser, put, quiet):
    put()
    key = only_key(browser)
    answer = browser.post(f"{browser.queue}/messages/{key}/edit", args='["new"]', kwargs='{"fail_while": null}')
    assert "sent to" in answer.text
    assert quiet.dead() == 0
    (message,) = broker.received(quiet)
    assert message["body"][:2] == [["new"], {"fail_while": None}]
    assert message["headers"]["id"] == "00000007-aaaa"
    assert message["headers"]["task"] == "library.probes.leave_trace"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [("{}", "{}"), ("[]", "[]"), ("[", "{}"), ("[NaN]", "{}"), ("[1e999]", "{}"), ("[" * 9999, "{}")],
)
def test_resend_when_arguments_are_invalid_then_sends_nothing(browser, put, quiet, args, kwargs):
    put()
    answer = browser.post(f"{browser.queue}/messages/{only_key(browser)}/edit", args=args, kwargs=kwargs)
    assert answer.status_code == 400
    assert "Nothing was sent" in answer.text
    assert (quiet.dead(), messages_visible(quiet)) == (1, 1)


def test_resend_command_when_given_arguments_then_sends_those(put, env, quiet):
    commands, queue = Commands(quiet), quiet.queue.name
    put()
    resend = ("dlq", "resend", queue, "--id", "00000007", "--args", '["new"]')
    commands.run(*resend, "--kwargs", "[]", status=2)
    commands.run(*resend)
    assert [message["body"][:2] for message in broker.received(quiet)] == [[["new"], {}]]
    put()
    put(argument=1)
    commands.run(*resend, status=2)
    assert "2 messages match" in commands.errors
    assert quiet.dead() == 2


def test_queues_when_one_does_not_exist_then_is_missing(env):
    browser = Browser(replace(env, contract=renamed(env.contract, "gone")))
    browser.log_in()
    text = browser.text("/")
    assert f"missing: {env.contract.queue_name(replace(env.contract.queues[0], name='gone'), 'development')}" in text
    assert all(f"/queues/{queue.name}" in text for queue in env.contract.queues[1:])


def test_resend_when_arguments_do_not_fit_the_task_then_sends_nothing(browser, put, quiet):
    task = f"{CONTRACT['package']}.tasks.{quiet.queue.module}.measure"
    put(task=task)
    commands = Commands(quiet)
    resend = ("dlq", "resend", quiet.queue.name, "--id", "00000007")
    commands.run(*resend, "--args", '["a", 2]', status=2)
    assert "the arguments do not fit" in " ".join(commands.errors.split())
    answer = browser.post(f"{browser.queue}/messages/{only_key(browser)}/edit", args="[]", kwargs='{"size": 1}')
    assert (answer.status_code, "the arguments do not fit" in answer.text) == (400, True)
    assert (quiet.dead(), messages_visible(quiet)) == (1, 1)
    commands.run(*resend, "--args", '["a"]')
    put(task="old.task")  # What parameters it has is not known here.
    commands.run(*resend, "--args", '["a", 2]')
    assert [message["body"][0] for message in broker.received(quiet)] == [["a"], ["a", 2]]


def test_command_when_flask_is_missing_then_says_what_to_install(env, quiet, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("celery_aws.console")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flask", None)
    ran = CliRunner().invoke(module("cli.console").command, ["--environment", "development"])
    assert ran.exit_code == 2
    assert f"{CONTRACT['service']}[console]" in ran.output


@pytest.mark.skipif(not IS_FIFO, reason="only FIFO queues drop duplicates")
def test_resend_when_edited_after_a_resend_then_is_no_duplicate(env, put, quiet):
    put()
    dlq = find(quiet.queue.name, "development")
    with dlq.peek() as peek:
        ((message,),) = peek.pages()
        assert dlq.resend([message]).accepted
        assert dlq.resend([message.edited(["new"], {})]).accepted
    assert [each["body"][0] for each in broker.received(quiet)] == [[0], ["new"]]


def test_resend_of_marked_ones_moves_those(browser, put, quiet):
    put(argument=1)
    put(argument=2, task="library.probes.stay")
    (key,) = re.findall(r'messages/([0-9a-f]+)"', browser.text(f"{browser.queue}?task=stay"))
    assert "1 message sent" in browser.post(f"{browser.queue}/resend", which="marked", key=key).text
    assert [message["body"][0] for message in broker.received(quiet)] == [[2]]
    assert quiet.dead() == 1
    assert browser.post(f"{browser.queue}/resend", which="filtered").status_code == 400
    assert "1 message sent" in browser.post(f"{browser.queue}/resend", which="filtered", task="leave_trace").text
    assert quiet.dead() == 0


def test_redrive_moves_all(browser, put, quiet):
    put()
    browser.post(f"{browser.queue}/redrive")
    assert len(broker.received(quiet)) == 1


def test_export_writes_what_the_command_writes_and_keeps_the_messages(browser, put, quiet):
    put()
    (line,) = browser.text(f"{browser.queue}/export").splitlines()
    assert find(quiet.queue.name, "development").imported(line).task == "library.probes.leave_trace"
    assert browser.text(f"{browser.queue}/export?task=other") == ""
    assert quiet.dead() == 1


def test_purge_when_the_name_is_typed_then_deletes_all(browser, put, quiet):
    put()
    assert browser.post(f"{browser.queue}/purge", name=quiet.queue.name).status_code == 400
    assert quiet.dead() == 1
    assert browser.post(f"{browser.queue}/purge", name=quiet.queue_name(dead=True)).status_code == 200
    assert quiet.dead() == 0


def test_message_when_it_is_gone_then_says_so(browser, put, quiet):
    put()
    key = only_key(browser)
    broker.empty(quiet, dead=True)
    assert "no longer in" in browser.text(f"{browser.queue}/messages/{key}", 404)


def test_schedules_when_a_beat_sends_then_are_not_looked_for_at_aws(env, monkeypatch):
    schedule = Schedule(name="nightly", task="x.y", queue=env.contract.queues[0].name, cron="30 6 * * *")
    env.contract = replace(env.contract, schedules=(schedule,))
    browser = Browser(env)
    browser.log_in()
    assert ("does not exist" in browser.text("/schedules")) == (BROKER == "sqs")
    monkeypatch.setenv(attempts.LOG_FILE, "log")
    page = browser.text("/schedules")
    assert "nightly" in page
    assert "does not exist" not in page


class Insights:
    """CloudWatch Logs, with a query that runs for a while and finds two lines."""

    def __init__(self, ends="Complete"):
        self.states = ["Scheduled", "Running", ends]

    def start_query(self, **query):
        self.query = query
        return {"queryId": "q"}

    def get_query_results(self, queryId):  # noqa: N803 - as boto3 calls it
        lines = ['{"task_id": "1", "outcome": "succeeded"}', "plain"]
        fields = [[{"field": "@ptr", "value": "x"}, {"field": "@message", "value": line}] for line in lines]
        return {"status": self.states.pop(0), "results": fields}


def test_tasks_when_in_aws_then_are_asked_of_the_workers_log_group(env, monkeypatch):
    monkeypatch.setattr(attempts, "POLL_SECONDS", 0)
    env._clients["logs"] = logs = Insights()
    assert attempts.find(env).recent(3, 50, '"', "succeeded") == [{"task_id": "1", "outcome": "succeeded"}]
    assert r'task like "\"" and outcome = "succeeded"' in logs.query["queryString"]
    assert logs.query["logGroupName"] == f"/{env.contract.service}/development/workers"
    assert logs.query["endTime"] - logs.query["startTime"] == pytest.approx(3 * 3600, abs=2)
    env._clients["logs"] = logs = Insights()
    attempts.find(env).lines('" | delete "', 1)
    assert r'filter task_id = "\" | delete \""' in logs.query["queryString"]


def test_tasks_when_the_query_fails_then_page_says_so(env, browser):
    browser.client.application.extensions["env"]._clients["logs"] = Insights("Failed")
    assert "ended with the status Failed" in browser.text("/tasks", 502)


def test_tasks_when_workers_log_into_a_file_then_are_shown(browser, tmp_path, monkeypatch):
    log = tmp_path / "log"
    line = {
        "timestamp": "2027-01-31T06:30:00+00:00",
        "level": "INFO",
        "task_id": "1-a",
        "task": "<b>x",
        "queue": "high",
    }
    done = {**line, "message": "done", "outcome": "succeeded", "attempt": 2, "duration_seconds": 0.25}
    log.with_name("log.1").write_text(json.dumps({**line, "message": "<i>begun"}) + "\n[1]\nplain\n", encoding="utf-8")
    log.write_text(json.dumps(done) + "\n" + '{"outcome": ', encoding="utf-8")
    monkeypatch.setenv(attempts.LOG_FILE, str(log))
    page = browser.text("/tasks")
    assert "&lt;b&gt;x" in page
    assert ">succeeded</span>" in page
    assert 'http-equiv="refresh"' in page
    assert "&lt;b&gt;x" not in browser.text("/tasks?outcome=revoked&refresh=off")
    page = browser.text("/tasks/lines?id=1-a")
    assert page.index("&lt;i&gt;begun") < page.index("done")
    assert "No log lines" in browser.text("/tasks/lines?id=2")
