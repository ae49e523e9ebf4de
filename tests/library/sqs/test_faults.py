"""Faults of SQS and of task processes: failing polls, undecodable messages, processes that die."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from celery import chord

from library.aws_faults import FAULTS, proxy, refusing
from library.support import CONTRACT, HAS_RESULTS, IS_FIFO, broker, eventually, notes, running_service

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A service without a worker."""
    with running_service(tmp_path_factory.mktemp("logs"), 5) as running:
        yield running


@pytest.fixture
def steady(tmp_path_factory):
    """A service without a worker, whose messages stay invisible for as long as the contract says."""
    with running_service(tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.fixture
def weather(calm):
    """A proxy in front of its emulator, and a worker behind it."""
    with proxy(calm.environment["AWS_ENDPOINT_URL"]) as between:
        yield between
        calm.stop_workers()
        calm.workers.clear()


def start(service, weather, label, **variables):
    """Start a worker behind the proxy."""
    worker = service.start_worker(label=label, AWS_ENDPOINT_URL=weather.url, **variables)
    assert service.ready(label), service.log(label)
    return worker


def test_worker_survives_every_kind_of_failed_poll_and_goes_on(calm, weather, tmp_path):
    worker = start(calm, weather, "polls")

    refused = re.compile("poll of queue .*Failed to connect")

    def recoveries():
        return calm.log("polls").count("succeed again")

    for fault in FAULTS:
        before = recoveries()
        if fault == "refused":
            with refusing(weather):
                assert eventually(lambda: refused.search(calm.log("polls"))), calm.log("polls")
        else:
            weather.faulty = 0
            weather.fault = fault
            assert eventually(lambda: weather.faulty), fault
            weather.fault = ""
        traces = tmp_path / fault
        traces.mkdir()
        calm.send("leave_trace", str(traces))
        # A poll that hangs is given up after the wait of a long poll and five seconds.
        done = eventually(lambda folder=traces: notes(folder), 15)
        assert done, f"after {fault}: {calm.log('polls')[-3000:]}"
        assert worker.poll() is None, f"the worker ended after {fault}"
        # An answer without messages is no failure, and curl itself tries again if a connection it had used is reset.
        if fault not in ("nothing", "reset"):
            assert eventually(lambda count=before: recoveries() > count), f"after {fault}: {calm.log('polls')[-3000:]}"


@pytest.mark.parametrize("fault", ["500", "throttled", "expired", "gone", "reset", "garbage", "page", "list"])
def test_worker_survives_a_failing_delete_and_deletes_later(calm, weather, tmp_path, fault):
    worker = start(calm, weather, f"deletes-{fault}")
    weather.target, weather.fault = "DeleteMessageBatch", fault
    calm.send("leave_trace", str(tmp_path))
    assert eventually(lambda: notes(tmp_path) and weather.faulty), calm.log(f"deletes-{fault}")
    # Meanwhile the worker works on.
    began = time.monotonic()
    for number in range(3):
        calm.send("leave_trace", str(tmp_path), group=f"g{number}")
    assert eventually(lambda: len(notes(tmp_path)) == 4, 15), calm.log(f"deletes-{fault}")
    assert time.monotonic() - began < 8
    time.sleep(1.5)  # So that nothing but another try can delete them.
    weather.fault = ""
    assert eventually(lambda: calm.waiting() == 0), calm.log(f"deletes-{fault}")
    assert (worker.poll(), len(notes(tmp_path))) == (None, 4)


def test_worker_when_an_answer_drips_in_then_polls_on_and_deletes_later(steady, tmp_path):
    with proxy(steady.environment["AWS_ENDPOINT_URL"]) as between:
        worker = start(steady, between, "drips")
        between.target, between.fault = "DeleteMessageBatch", "drip"
        steady.send("leave_trace", str(tmp_path))
        assert eventually(lambda: notes(tmp_path) and between.faulty), steady.log("drips")
        began = time.monotonic()
        for number in range(6):
            steady.send("leave_trace", str(tmp_path), group=f"g{number}")
        assert eventually(lambda: len(notes(tmp_path)) == 7, 15), steady.log("drips")
        assert time.monotonic() - began < 8
        between.fault = ""
        assert eventually(lambda: steady.waiting() == 0), steady.log("drips")
        assert (worker.poll(), len(notes(tmp_path))) == (None, 7)


def test_worker_survives_a_failing_return_of_a_message(calm, weather, tmp_path):
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    traces = tmp_path / "traces"
    traces.mkdir()
    worker = start(calm, weather, "returns")
    weather.target, weather.fault = "ChangeMessageVisibility", "reset"
    calm.send("leave_trace", str(traces), str(obstacle))
    assert eventually(lambda: len(notes(traces)) >= 2), calm.log("returns")  # after its visibility timeout
    weather.fault = ""
    obstacle.unlink()
    assert eventually(lambda: calm.waiting() == 0), calm.log("returns")
    assert (worker.poll(), calm.dead()) == (None, 0)


@pytest.mark.parametrize("fault", ["503", "nothing", "denied"])
def test_failure_when_dead_letters_are_refused_then_runs_once_and_keeps_no_slot(steady, tmp_path, fault):
    for name in ("runs", "errbacks"):
        (tmp_path / name).mkdir()
    task = steady.probe("despair", str(tmp_path / "runs"))
    task.link_error(steady.probe("mark", str(tmp_path / "errbacks"), ".errback"))
    with proxy(steady.environment["AWS_ENDPOINT_URL"]) as between:
        one_slot = ["--concurrency=1", "--prefetch-multiplier=1"]
        worker = steady.start_worker(label=fault, extra=one_slot, AWS_ENDPOINT_URL=between.url)
        assert steady.ready(fault), steady.log(fault)
        between.target, between.holding, between.fault = "SendMessage", b"-dlq", fault
        with steady.reached():
            task.apply_async()
        assert eventually(lambda: between.faulty), steady.log(fault)
        steady.send("leave_trace", str(tmp_path), group="other")
        assert eventually(lambda: notes(tmp_path)), steady.log(fault)
        time.sleep(5)
        between.fault = ""
        assert eventually(lambda: (steady.dead(), steady.waiting()) == (1, 0), 60), steady.log(fault)
        assert worker.poll() is None
    assert (len(notes(tmp_path / "runs")), len(notes(tmp_path / "errbacks"))) == (1, 1), steady.log(fault)


@pytest.mark.skipif(not HAS_RESULTS, reason="chords need results")
def test_chord_when_the_broker_is_out_at_its_end_then_its_body_runs_once(steady, tmp_path):
    for name in ("header", "body", "errbacks"):
        (tmp_path / name).mkdir()
    header = [steady.probe("overrun", str(tmp_path / "header"), 4, group=f"g{number}") for number in range(2)]
    body = steady.probe("mark", str(tmp_path / "body"), ".body")
    body.on_error(steady.probe("mark", str(tmp_path / "errbacks"), ".errback"))
    with proxy(steady.environment["AWS_ENDPOINT_URL"]) as between:
        worker = start(steady, between, "chord")
        with steady.reached():
            result = chord(header, body, app=steady.app).apply_async(MessageGroupId="g")
        assert eventually(lambda: len(notes(tmp_path / "header")) == 2), steady.log("chord")
        between.target, between.fault = "SendMessage", "503"
        time.sleep(9)
        between.fault = ""
        assert eventually(lambda: steady.state(result) == "SUCCESS", 60), steady.log("chord")
        assert eventually(lambda: steady.waiting() == 0), steady.log("chord")
        assert worker.poll() is None
    assert [len(notes(tmp_path / name)) for name in ("header", "body", "errbacks")] == [4, 1, 0], steady.log("chord")
    assert steady.dead() == 0


def test_last_failure_that_the_worker_cannot_dead_letter_is_left_to_sqs(calm, weather, tmp_path):
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    worker = start(calm, weather, "dead-lettering")
    weather.target, weather.fault = "SendMessage", "500"
    calm.send("leave_trace", str(tmp_path), str(obstacle))
    assert eventually(lambda: (calm.dead(), calm.waiting()) == (1, 0), 60), calm.log("dead-lettering")
    assert "not dead-lettered" in calm.log("dead-lettering")
    assert worker.poll() is None
    broker.empty(calm, dead=True)


def test_worker_that_may_not_delete_ends_and_says_what_to_do(calm, weather, tmp_path):
    worker = start(calm, weather, "no-permission")
    weather.target, weather.fault = "DeleteMessageBatch", "denied"
    calm.send("leave_trace", str(tmp_path))
    assert worker.wait(30) == 1
    assert "allow ReceiveMessage, DeleteMessage and ChangeMessageVisibility" in calm.log("no-permission")
    weather.fault = ""
    start(calm, weather, "with-permission")
    assert eventually(lambda: calm.waiting() == 0)


@pytest.mark.skipif(CONTRACT["credentials"] != "role", reason="access keys are there from the start or never")
def test_worker_waits_for_credentials_that_are_late(calm, tmp_path):
    """Of a role they come from a service on the machine, which may fail for a while."""
    late = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "", "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "1"}
    keys = {"AccessKeyId": "LATELATELATELATE", "SecretAccessKey": "late", "Token": "late"}
    asked = []

    class Credentials(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(500 if len(asked) < 8 else 200)
            self.end_headers()
            self.wfile.write(json.dumps({**keys, "Expiration": "2099-01-01T00:00:00Z"}).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Credentials)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    late["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://127.0.0.1:{server.server_port}/"
    without = {name: value for name, value in calm.environment.items() if name not in KEYS}
    try:
        worker = dataclasses.replace(calm, environment=without, workers=calm.workers).start_worker(label="late", **late)
        calm.send("leave_trace", str(tmp_path))
        assert eventually(lambda: notes(tmp_path), 60), calm.log("late")
        assert "CredentialRetrievalError" in calm.log("late")
        assert worker.poll() is None
    finally:
        server.shutdown()
        calm.stop_workers()


@pytest.mark.skipif(CONTRACT["credentials"] != "role", reason="access keys do not expire")
def test_worker_survives_credentials_that_have_expired_and_keeps_no_messages_in_files(steady, tmp_path):
    """What hands them out may go on handing out the old ones; botocore raises RuntimeError then."""
    keys = {"AccessKeyId": "SHORTSHORTSHORTS", "SecretAccessKey": "short", "Token": "short"}
    valid = threading.Event()
    valid.set()

    class Credentials(BaseHTTPRequestHandler):
        def do_GET(self):
            now = datetime.now(timezone.utc)
            expires = now + (timedelta(seconds=15) if valid.is_set() else timedelta(seconds=-60))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({**keys, "Expiration": expires.isoformat()}).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Credentials)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    files = tmp_path / "files"
    files.mkdir()
    (tmp_path / "notes").mkdir()
    variables = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{server.server_port}/",
        "TMPDIR": str(files),
    }
    without = {name: value for name, value in steady.environment.items() if name not in KEYS}
    try:
        worker = dataclasses.replace(steady, environment=without, workers=steady.workers).start_worker(
            label="expired", **variables
        )
        assert steady.ready("expired"), steady.log("expired")
        steady.send("overrun", str(tmp_path / "notes"), 20)
        assert eventually(lambda: notes(tmp_path / "notes")), steady.log("expired")
        valid.clear()
        assert eventually(lambda: "CredentialsMissingError" in steady.log("expired"), 60), steady.log("expired")[-3000:]
        assert worker.poll() is None
        valid.set()
        assert eventually(lambda: steady.waiting() == 0, 60), steady.log("expired")
        assert worker.poll() is None
        assert "Unrecoverable" not in steady.log("expired")
        valid.clear()
        steady.send("overrun", str(tmp_path / "notes"), 60)
        worker.send_signal(signal.SIGQUIT)
        worker.wait(60)
        assert [path.name for path in files.iterdir() if path.suffix != ".alive"] == []
    finally:
        server.shutdown()
        steady.stop_workers()


@pytest.mark.parametrize(
    ("variables", "fault", "advice"),
    [
        ({"ENVIRONMENT": "nowhere"}, "", "create the queue, or check ENVIRONMENT"),
        ({}, "denied", "allow ReceiveMessage"),
    ],
    ids=["no-such-queue", "no-permission"],
)
def test_what_does_not_heal_ends_the_worker_with_a_word_on_what_to_do(calm, weather, variables, fault, advice):
    weather.fault = fault
    label = f"hopeless-{fault}"
    worker = calm.start_worker(label=label, AWS_ENDPOINT_URL=weather.url, **variables)
    assert worker.wait(30) == 1, calm.log(label)
    assert advice in calm.log(label)
    assert "Traceback" not in calm.log(label)


def test_messages_that_cannot_be_read_end_in_the_dead_letter_queue_and_the_worker_goes_on(calm, weather, tmp_path):
    sqs = calm.client("sqs")
    readable = {"content-type": "application/json", "content-encoding": "utf-8"}
    pickled = {"content-type": "application/x-python-serialize"}
    nowhere: dict = {}
    properties = {"delivery_info": nowhere}
    no_id = {"body": "[[], {}, {}]", **readable, "headers": {"task": "x"}, "properties": properties}
    never = {"task": "library.probes.leave_trace", "id": "4", "eta": "never"}
    unreadable = [
        "plain text",
        '{"Records": []}',
        json.dumps({"body": "x", "properties": "no object"}),
        json.dumps(no_id),
        json.dumps(dict(no_id, headers={"task": "no.such.task", "id": "1"})),
        json.dumps(dict(no_id, body="{", headers={"task": "library.probes.leave_trace", "id": "2"})),
        json.dumps(dict(no_id, **pickled, headers={"task": "x", "id": "3"})),
        json.dumps(dict(no_id, body='[["for no log"], {}, {}]', headers=never)),
        json.dumps(dict(no_id, headers={"task": "library.probes.leave_trace", "id": "5", "stamped_headers": 7})),
    ]
    for number, body in enumerate(unreadable):
        order = {"MessageGroupId": f"foreign-{number}", "MessageDeduplicationId": f"{time.time()}-{number}"}
        trace = {"DataType": "String", "StringValue": f"trace-{number}"}
        sqs.send_message(
            QueueUrl=calm.url(), MessageBody=body, MessageAttributes={"trace": trace}, **(order if IS_FIFO else {})
        )
    worker = start(calm, weather, "reader")
    assert eventually(lambda: calm.dead() == len(unreadable), 60), calm.log("reader")
    assert worker.poll() is None
    calm.send("leave_trace", str(tmp_path))
    assert eventually(lambda: notes(tmp_path))
    dead = sqs.receive_message(
        QueueUrl=calm.url(dead=True), MessageAttributeNames=["All"], MaxNumberOfMessages=10, VisibilityTimeout=0
    )
    told = [message["MessageAttributes"] for message in dead["Messages"]]
    assert {attributes["trace"]["StringValue"] for attributes in told} == {
        f"trace-{number}" for number in range(len(unreadable))
    }
    why = [attributes["FailureException"]["StringValue"] for attributes in told if "FailureException" in attributes]
    for reason in ("no.such.task", "not a Celery message", "invalid ETA", "stamped_headers must be"):
        assert any(reason in said for said in why), why
    for contents in ("plain text", "for no log"):
        assert contents not in calm.log("reader")
    broker.empty(calm, dead=True)
