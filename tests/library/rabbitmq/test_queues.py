"""`queues` and `metrics` on RabbitMQ; the tests put the values into CloudWatch."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from xml.etree import ElementTree

import pytest

from library.commands import Commands
from library.rabbitmq.messages import celery_body, channel, name, put, visible
from library.support import CONTRACT, eventually, module

pytestmark = pytest.mark.end_to_end

metrics = module("cli.rabbitmq.metrics")


@pytest.fixture(scope="module")
def quiet(quiet):
    """A service without a worker, all of whose queues are there."""
    with channel(quiet):
        yield quiet


@pytest.fixture
def commands(quiet):
    with channel(quiet) as opened:
        for dead in (True, False):
            opened.purge(name(quiet, dead=dead))
    found = Commands(quiet)
    assert eventually(lambda: not first(found)["waiting"] and not first(found)["dead"])
    return found


def first(commands):
    """Return what `queues --json` says of the first queue, whatever its exit code."""
    said, _ = commands.start("queues", "--json").communicate(timeout=30)
    return json.loads(said)[0]


def put_metric(service, metric, *values):
    """Put values of the last minutes, one a minute, the last of them now."""
    now = datetime.now(timezone.utc)
    service.client("cloudwatch").put_metric_data(
        Namespace="AWS/AmazonMQ",
        MetricData=[
            {
                "MetricName": metric,
                "Dimensions": [{"Name": "Broker", "Value": f"{CONTRACT['service']}-development"}],
                "Timestamp": now - timedelta(minutes=len(values) - 1 - index),
                "Value": value,
            }
            for index, value in enumerate(values)
        ],
    )


def test_queues_shows_depth_workers_and_dead_letter_messages(quiet, commands):
    said = commands.run("queues")
    assert all(queue["name"] in said for queue in CONTRACT["queues"])
    assert all(len(line) <= 80 for line in said.splitlines())
    put(quiet, [celery_body(n) for n in range(7)], dead=False)
    quiet.send("leave_trace", "/nowhere", countdown=200)
    assert eventually(lambda: (first(commands)["waiting"], first(commands)["delayed_of_all"]) == (7, 1))
    found = first(commands)
    assert (found["in_flight"], found["workers"], found["dead"]) == (0, 0, 0)
    assert "1 delayed message in all queues" in commands.run("queues", status=1)  # Nobody takes what waits.
    with channel(quiet) as opened:
        opened.basic_get(quiet.queue.name)
        assert eventually(lambda: (first(commands)["waiting"], first(commands)["in_flight"]) == (6, 1))
    put(quiet, [celery_body(1)])
    assert eventually(lambda: first(commands)["dead"] == 1)
    assert "\x1b" not in commands.run("queues", status=1)


@pytest.mark.parametrize("suffix", ["", "-dlq"])
def test_queue_when_it_does_not_exist_then_is_missing_and_others_are_shown(quiet, commands, suffix):
    last = quiet.contract.queues[-1].name
    with channel(quiet) as opened:
        opened.queue_delete(f"{last}{suffix}")
    try:
        said = commands.run("queues", status=1)
        assert [line.split()[0] for line in said.splitlines() if "missing" in line] == [last]
        assert all(queue["name"] in said for queue in CONTRACT["queues"])
        *others, found = json.loads(commands.run("queues", "--json", status=1))
        assert (found["missing"], found["dead" if suffix else "waiting"]) == ([f"{last}{suffix}"], None)
        assert [each["missing"] for each in others] == [[]] * len(others)
    finally:
        with channel(quiet):  # Declares it again.
            pass


def test_queues_that_a_worker_serves_are_well(quiet, commands):
    quiet.start_worker(label="for-a-while")
    try:
        assert eventually(lambda: first(commands)["workers"] == 1)
        commands.run("queues")
    finally:
        quiet.stop_workers()


def test_watch_redraws_in_place(quiet, commands):
    terminal = commands.terminal("queues", "--watch", "--every", "0.5")
    terminal.expect("WAITING")
    put(quiet, [celery_body(n) for n in range(40)], dead=False)
    terminal.expect(r"m4\d\x1b")  # Red, as there are no consumers.
    # The cursor went up, once for every line that is drawn anew.
    assert "\x1b[1A" in terminal.before
    terminal.sendintr()
    terminal.wait()
    assert terminal.exitstatus == 0
    assert "Traceback" not in terminal.read()


def test_metrics_draws_curves(quiet, commands, tmp_path):
    put_metric(quiet, "PublishRate", 0, 70, 140)
    said = commands.run("metrics", "--hours", "0.5")
    assert all(len(line) <= 80 for line in said.splitlines()), said
    row = next(line for line in said.splitlines() if "sent" in line)
    assert "▁▅█" in row
    assert row.split()[-2:] == ["140", "140"]
    file = tmp_path / "metrics.html"
    commands.run("metrics", "--html", file)
    text = file.read_text(encoding="utf-8")
    figures = ElementTree.fromstring("<all>" + text[text.index("<h1>") : text.rindex("</html>")] + "</all>")
    assert len(figures.findall("figure")) == len(metrics.TITLES)
    assert figures.findall("figure/svg/polyline")
    assert "http" not in text
    found = json.loads(commands.run("metrics", "--json"))
    assert [series["metric"] for series in found] == [metric.name for metric in metrics.TITLES]
    assert {series["broker"] for series in found} == {f"{CONTRACT['service']}-development"}
    commands.run("metrics", PYTHONIOENCODING="ascii")
    commands.run("metrics", "--html", "/nowhere/at/all.html", status=2)


@pytest.mark.parametrize(
    "elsewhere", [{"ENVIRONMENT": "production"}, {"BROKER_URL": "amqps://b-1.mq.eu-west-1.amazonaws.com:5671"}]
)
def test_purge_when_the_broker_is_not_that_of_development_then_is_refused(quiet, commands, elsewhere):
    """Although its environment is given as `development`: no queue's name contains it."""
    put(quiet, [celery_body(n) for n in range(3)], dead=False)
    purge = ("queues", "purge", name(quiet, dead=False), "--yes", "--environment", "development")
    commands.run(*purge, status=2, **elsewhere)
    assert "nothing was deleted" in commands.errors
    assert visible(quiet, dead=False) == 3
    commands.run(*purge, ENVIRONMENT="development")
    assert visible(quiet, dead=False) == 0
