"""The promises of the service, kept by real workers on the emulator."""

from __future__ import annotations

import importlib
import json
import time

import pytest
from celery import chord

from tests.conftest import CONTRACT, VISIBILITY_TIMEOUT_SECONDS

app = importlib.import_module(f"{CONTRACT['package']}.app")

pytestmark = pytest.mark.end_to_end

QUEUES = app.contract.queues
HAS_RESULTS = CONTRACT["results"] != "none"


def eventually(holds, seconds=40):
    """Wait until `holds()` is true, and return what it returned."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


@pytest.fixture
def sender(service, monkeypatch):
    """An application that sends to the emulator."""
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    settings = importlib.import_module(f"{CONTRACT['package']}.settings")
    return app.create_app(app.contract, settings.Settings())


def send_probe(sender, queue, **kwargs):
    return sender.send_task(
        "tests.probes.leave_trace",
        kwargs=kwargs,
        queue=sender.amqp.queues[app.contract.celery_name(queue)],
        MessageGroupId="group-1",
    )


def messages_in(sqs, name):
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    attributes = sqs.get_queue_attributes(
        QueueUrl=url,
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )["Attributes"]
    return sum(map(int, attributes.values()))


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_task_on_every_queue_is_done_once_with_its_result(service, sender, queue, tmp_path):
    result = send_probe(sender, queue, folder=str(tmp_path))
    if HAS_RESULTS:
        assert result.get(timeout=40) == "done"
    assert eventually(lambda: list(tmp_path.iterdir())), service.log(queue.name)
    sqs = service.sqs()
    assert eventually(lambda: messages_in(sqs, app.contract.queue_name(queue, "development")) == 0)
    assert [trace.read_text() for trace in tmp_path.iterdir()] == ["group-1"]


@pytest.mark.parametrize("queue", QUEUES[:1], ids=lambda queue: queue.name)
def test_failing_task_is_delivered_as_often_as_agreed_then_dead_lettered_then_redriven(
    service, sender, queue, tmp_path
):
    traces, obstacle = tmp_path / "traces", tmp_path / "obstacle"
    traces.mkdir()
    obstacle.touch()
    sqs = service.sqs()
    main_queue = app.contract.queue_name(queue, "development")
    dead_letters = app.contract.dead_letter_queue_name(queue, "development")

    send_probe(sender, queue, folder=str(traces), fail_while=str(obstacle))
    assert eventually(lambda: messages_in(sqs, dead_letters) == 1), service.log(queue.name)
    assert messages_in(sqs, main_queue) == 0
    assert len(list(traces.iterdir())) == queue.max_receive_count

    obstacle.unlink()
    url = sqs.get_queue_url(QueueName=dead_letters)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sqs.start_message_move_task(SourceArn=arn)
    assert eventually(lambda: len(list(traces.iterdir())) == queue.max_receive_count + 1)
    assert eventually(lambda: messages_in(sqs, main_queue) + messages_in(sqs, dead_letters) == 0)
    assert {trace.read_text() for trace in traces.iterdir()} == {"group-1"}


def test_task_with_a_countdown_beyond_its_visibility_timeout_runs_once(service, sender, tmp_path):
    if CONTRACT["broker"] == "sqs-fifo":
        pytest.skip("a worker holds it, and the contract's visibility timeout covers that")
    began = time.monotonic_ns()
    sender.send_task(
        "tests.probes.leave_trace",
        kwargs={"folder": str(tmp_path)},
        queue=sender.amqp.queues[app.contract.celery_name(QUEUES[0])],
        countdown=VISIBILITY_TIMEOUT_SECONDS + 2,
    )
    name = app.contract.queue_name(QUEUES[0], "development")
    assert eventually(lambda: list(tmp_path.iterdir())), service.log(QUEUES[0].name)
    assert eventually(lambda: messages_in(service.sqs(), name) == 0)
    (trace,) = tmp_path.iterdir()
    assert int(trace.name) - began >= (VISIBILITY_TIMEOUT_SECONDS + 2) * 1e9


def test_message_in_the_queue_is_readable_json(service, sender):
    name = app.contract.queue_name(QUEUES[0], "development")
    seen = []

    class Recorder:
        def send_message(self, **message):
            seen.append(message)

    with sender.connection_for_write() as connection:
        channel = connection.default_channel
        channel.sqs = lambda **_: Recorder()
        sender.send_task(
            "tests.probes.leave_trace",
            kwargs={"folder": "ordner"},
            connection=connection,
            queue=sender.amqp.queues[app.contract.celery_name(QUEUES[0])],
            MessageGroupId="group-1",
        )
    (message,) = seen
    assert message["QueueUrl"].endswith(name)
    assert message["MessageGroupId"] == "group-1"
    assert json.loads(json.loads(message["MessageBody"])["body"])[1] == {"folder": "ordner"}


@pytest.mark.skipif(not HAS_RESULTS, reason="chords need results")
def test_chord_of_the_examples_adds_up(service):
    module = f"{CONTRACT['package']}.tasks.{QUEUES[0].module}"
    if not hasattr(importlib.import_module(module), "count_words_of_all"):
        pytest.skip("the example is gone")
    code = (
        f"from {module} import count_words_of_all\n"
        f"chord = count_words_of_all(['one', 'one two', 'one two three'])\n"
        f"print(chord.apply_async(MessageGroupId='g').get(timeout=60))\n"
    )
    run = service.python("-c", code)
    assert (run.stdout, run.returncode) == ("6\n", 0), run.stderr


@pytest.mark.skipif(HAS_RESULTS, reason="chords work where there are results")
def test_chord_without_results_is_an_error_that_says_so(sender):
    with pytest.raises(NotImplementedError, match="requires a result backend"):
        chord([sender.signature("a.b")], sender.signature("a.b"), app=sender).apply_async()


def test_command_sends_and_waits(service):
    if not hasattr(importlib.import_module(f"{CONTRACT['package']}.tasks.{QUEUES[0].module}"), "count_words"):
        pytest.skip("the example is gone")
    wait = ("--wait", "40") if HAS_RESULTS else ()
    sent = service.python("-m", CONTRACT["package"], "send", f"{QUEUES[0].name}.count_words", "a b", "--group=g", *wait)
    assert sent.returncode == 0, sent.stderr
    assert len(sent.stdout.splitlines()[0]) == 36
    assert sent.stdout.splitlines()[1:] == (["2"] if HAS_RESULTS else [])


@pytest.mark.skipif(CONTRACT["credentials"] != "keys", reason="only the variant with keys has a secret")
def test_no_log_line_holds_the_secret(service, sender):
    for queue in QUEUES:
        assert service.environment["AWS_SECRET_ACCESS_KEY"] not in service.log(queue.name)
