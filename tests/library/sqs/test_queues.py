"""`queues` and `metrics` on the emulator; CloudWatch's values are put there by the tests, since it makes none."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from xml.etree import ElementTree

import pytest

from library.commands import Commands
from library.sqs.messages import celery_body, put
from library.support import CONTRACT, module

pytestmark = pytest.mark.end_to_end

metrics = module("cli.sqs.metrics")


@pytest.fixture
def commands(quiet):
    return Commands(quiet)


def put_metric(service, name, *values):
    """Put values of the last minutes, one a minute, the last of them now."""
    queue = service.contract.queue_name(service.queue, "development")
    now = datetime.now(timezone.utc)
    service.client("cloudwatch").put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": name,
                "Dimensions": [{"Name": "QueueName", "Value": queue}],
                "Timestamp": now - timedelta(minutes=len(values) - 1 - index),
                "Value": value,
            }
            for index, value in enumerate(values)
        ],
    )


def test_queues_shows_depth_age_and_dead_letter_messages(quiet, commands):
    said = commands.run("queues")
    assert all(queue["name"] in said for queue in CONTRACT["queues"])
    assert all(len(line) <= 80 for line in said.splitlines())
    put(quiet, [celery_body(n) for n in range(7)], dead=False)
    quiet.client("sqs").receive_message(QueueUrl=quiet.url(), MaxNumberOfMessages=2)
    put_metric(quiet, "ApproximateAgeOfOldestMessage", 1_000, 50)
    first = json.loads(commands.run("queues", "--json"))[0]
    assert first["waiting"] + first["in_flight"] == 7
    assert (first["oldest_seconds"], first["dead"]) == (50, 0)
    put_metric(quiet, "ApproximateAgeOfOldestMessage", 90_000)
    assert "25h" in commands.run("queues", status=1)
    put(quiet, [celery_body(1)])
    assert json.loads(commands.run("queues", "--json", status=1))[0]["dead"] == 1
    assert "\x1b" not in commands.run("queues", status=1)


@pytest.mark.parametrize("dead", [False, True])
def test_queue_when_it_does_not_exist_then_is_missing_and_others_are_shown(quiet, commands, dead):
    sqs, last = quiet.client("sqs"), quiet.contract.queues[-1]
    name = quiet.contract.queue_name(last, "development", dead=dead)
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    sqs.delete_queue(QueueUrl=url)
    try:
        said = commands.run("queues", status=1)
        assert [line.split()[0] for line in said.splitlines() if "missing" in line] == [last.name]
        assert all(queue.name in said for queue in quiet.contract.queues)
        *others, found = json.loads(commands.run("queues", "--json", status=1))
        assert (found["missing"], found["dead" if dead else "waiting"]) == ([name], None)
        assert [each["missing"] for each in others] == [[]] * len(others)
    finally:
        kept = ("VisibilityTimeout", "MessageRetentionPeriod", "FifoQueue")
        sqs.create_queue(QueueName=name, Attributes={each: attributes[each] for each in kept if each in attributes})


def test_watch_redraws_in_place(quiet, commands):
    terminal = commands.terminal("queues", "--watch", "--every", "0.5")
    terminal.expect("WAITING")
    put(quiet, [celery_body(n) for n in range(40)], dead=False)
    terminal.expect(r" 4\d ")
    # The cursor went up, once for every line that is drawn anew.
    assert "\x1b[1A" in terminal.before
    terminal.sendintr()
    terminal.wait()
    assert terminal.exitstatus == 0
    assert "Traceback" not in terminal.read()


def test_metrics_draws_curves(quiet, commands, tmp_path):
    put_metric(quiet, "NumberOfMessagesSent", 0, 70, 140)
    name = quiet.queue.name
    said = commands.run("metrics", name, "--hours", "0.5")
    assert all(len(line) <= 80 for line in said.splitlines()), said
    row = next(line for line in said.splitlines() if "sent" in line)
    assert "▁▅█" in row
    assert row.split()[-2:] == ["140", "140"]
    file = tmp_path / "metrics.html"
    commands.run("metrics", "--html", file)
    text = file.read_text(encoding="utf-8")
    figures = ElementTree.fromstring("<all>" + text[text.index("<h1>") : text.rindex("</html>")] + "</all>")
    assert len(figures.findall("figure")) == 4 * len(CONTRACT["queues"])
    assert figures.findall("figure/svg/polyline")
    assert "http" not in text
    found = json.loads(commands.run("metrics", name, "--json"))
    assert [series["metric"] for series in found] == [metric.name for metric in metrics.TITLES]
    assert {len(series["values"]) for series in found} == {36}
    commands.run("metrics", "--html", "/nowhere/at/all.html", status=2)
    commands.run("metrics", PYTHONIOENCODING="ascii")
    commands.run("metrics", "nope", status=2)
    assert "no queue 'nope'" in commands.errors
