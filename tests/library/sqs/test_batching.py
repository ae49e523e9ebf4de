"""Sending many messages: few requests, nothing too large, and who was not sent is known."""

from __future__ import annotations

import json
from collections import defaultdict
from types import SimpleNamespace

import pytest
from celery import chord, group
from kombu.exceptions import OperationalError

from library.aws_faults import proxy
from library.support import CONTRACT, HAS_RESULTS, IS_FIFO, eventually, module, notes, running_service

batching = module("brokers.sqs.batching")
SUFFIX = ".fifo" if IS_FIFO else ""
QUEUE = CONTRACT["queues"][0]["name"] + SUFFIX


class RecordingSQS:
    """Answers as SQS would, but refuses what a test wants refused."""

    def __init__(self, refuse=lambda body, attempt: None):
        self.requests = []
        self.refuse = refuse
        self.attempts = {}

    def send_message_batch(self, QueueUrl, Entries):  # noqa: N803 - as boto3 has it
        assert 1 <= len(Entries) <= 10
        assert sum(len(entry["MessageBody"].encode()) for entry in Entries) <= batching.MAX_REQUEST_BYTES
        assert len({entry["Id"] for entry in Entries}) == len(Entries)
        self.requests.append([entry["MessageBody"] for entry in Entries])
        taken, failed = [], []
        for entry in Entries:
            body = entry["MessageBody"]
            self.attempts[body] = self.attempts.get(body, 0) + 1
            if code := self.refuse(body, self.attempts[body]):
                failed.append({"Id": entry["Id"], "Code": code, "SenderFault": code == "Bad", "Message": "as told"})
            else:
                taken.append({"Id": entry["Id"]})
        return {"Successful": taken, "Failed": failed}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(batching.time, "sleep", lambda _: None)


def send(sqs, messages, queue=QUEUE):
    """Send bodies, each in the group of its first letter."""
    channel = SimpleNamespace(sqs=lambda queue: sqs, predefined_queues=defaultdict(lambda: {"url": "url"}))
    sending = batching.BatchSender(channel, queue)
    sending.send([((body, "task"), {"MessageBody": body, "MessageGroupId": body[0]}) for body in messages])
    return sending


def test_requests_hold_ten_messages_and_no_more_bytes_than_sqs_takes():
    sqs = RecordingSQS()
    assert send(sqs, list("abcdefghijklmnopqrstuvwxy")).failed == []
    assert [len(request) for request in sqs.requests] == [10, 10, 5]
    sqs = RecordingSQS()
    big = [letter * 400_000 for letter in "abcde"]
    assert send(sqs, big).failed == []
    assert [len(request) for request in sqs.requests] == [2, 2, 1]


def test_what_sqs_did_not_take_is_sent_again_alone_then_reported():
    sqs = RecordingSQS(lambda body, attempt: "Throttled" if body == "b" and attempt < 3 else None)
    assert send(sqs, ["a", "b", "c"]).failed == []
    assert sqs.requests == [["a", "b", "c"], ["b"], ["b"]]
    sqs = RecordingSQS(lambda body, attempt: "Throttled" if body == "b" else None)
    assert send(sqs, ["a", "b", "c"]).failed == [("b", "task", "Throttled: as told")]
    assert len(sqs.requests) == batching.ATTEMPTS


def test_what_is_the_senders_fault_is_not_sent_again():
    sqs = RecordingSQS(lambda body, attempt: "Bad" if body == "b" else None)
    assert send(sqs, ["a", "b", "c"]).failed == [("b", "task", "Bad: as told")]
    assert len(sqs.requests) == 1


def test_what_an_answer_does_not_tell_of_is_sent_again():
    class Garbled(RecordingSQS):
        def send_message_batch(self, QueueUrl, Entries):  # noqa: N803 - as boto3 has it
            answer = super().send_message_batch(QueueUrl, Entries)
            return answer if len(self.requests) > 1 else {}

    sqs = Garbled()
    assert send(sqs, ["a", "b"]).failed == []
    assert sqs.requests == [["a", "b"]] * 2


def test_after_a_request_that_fails_as_a_whole_nothing_is_waited_for_again():
    class Broken(RecordingSQS):
        def send_message_batch(self, QueueUrl, Entries):  # noqa: N803 - as boto3 has it
            self.requests.append(Entries)
            raise ConnectionError("no way")

    sqs = Broken()
    messages = [chr(ord("a") + index % 26) + str(index) for index in range(50)]
    failed = send(sqs, messages).failed
    assert {task_id for task_id, _, _ in failed} == set(messages)
    assert {reason for _, _, reason in failed} == {"no way"}
    assert len(sqs.requests) == 1


def test_what_was_taken_before_a_request_failed_as_a_whole_is_not_reported():
    class BreaksLater(RecordingSQS):
        def send_message_batch(self, QueueUrl, Entries):  # noqa: N803 - as boto3 has it
            if self.requests:
                raise ConnectionError("no way")
            return super().send_message_batch(QueueUrl, Entries)

    sqs = BreaksLater(lambda body, attempt: "Throttled" if body == "b" else None)
    assert send(sqs, ["a", "b", "c"]).failed == [("b", "task", "no way")]


def test_messages_of_a_fifo_group_wait_for_each_other():
    sqs = RecordingSQS(lambda body, attempt: "Throttled" if body == "b2" else None)
    failed = send(sqs, ["a1", "b1", "a2", "b2", "b3", "a3"], "q.fifo").failed
    assert [task_id for task_id, _, _ in failed] == ["b2", "b3"]
    assert failed[1][2] == "b2, earlier in its group, was not sent"
    taken = [body for request in sqs.requests for body in request]
    assert "b3" not in taken
    for request in sqs.requests:
        assert len({body[0] for body in request}) == len(request)


def send_nowhere(argument):
    """Send a task without a result, for which some result stores would be asked first."""
    app = module("service").app()
    return app.send_task("library.probes.leave_trace", (argument,), MessageGroupId="g", ignore_result=True)


def test_message_too_large_is_refused_before_anything_is_sent():
    with pytest.raises(batching.MessageTooLargeError, match=r"has [0-9,]+ bytes, but max_message_bytes in contract"):
        send_nowhere("x" * CONTRACT["max_message_bytes"])
    with pytest.raises(batching.MessageTooLargeError), module("service").app().batching():
        # Nothing answers where the fast tests send to, so this shows that nothing was sent.
        send_nowhere("x")
        send_nowhere("x" * CONTRACT["max_message_bytes"])


def test_a_block_that_raises_sends_nothing():
    with pytest.raises(KeyError), module("service").app().batching():
        send_nowhere("x")
        raise KeyError


@pytest.mark.end_to_end
def test_everything_sent_in_a_block_goes_out_in_batches_and_is_done(tmp_path_factory, tmp_path):
    with (
        running_service(tmp_path_factory.mktemp("logs")) as service,
        proxy(service.environment["AWS_ENDPOINT_URL"]) as counting,
    ):
        service.environment["AWS_ENDPOINT_URL"] = counting.url
        folder = str(tmp_path)
        with service.reached():
            with service.app.batching():
                for number in range(15):
                    service.probe("leave_trace", folder, group=f"g{number}").delay()
                signatures = [service.probe("leave_trace", folder, group=f"h{n}") for n in range(5)]
                group(signatures, app=service.app).apply_async()
                if HAS_RESULTS:
                    end = service.probe("follow", folder)
                    chord([signature.clone() for signature in signatures], end, app=service.app).apply_async()
                assert counting.seen["SendMessage"] + counting.seen["SendMessageBatch"] == 0
            sent = 25 if HAS_RESULTS else 20
            # S3 cannot count a chord's tasks, so Celery sends one more that looks after them.
            assert counting.seen["SendMessageBatch"] in (2, 3, 4)
            assert counting.seen["SendMessage"] == 0
        service.start_worker()
        total = sent + 1 if HAS_RESULTS else sent
        assert eventually(lambda: len(notes(tmp_path)) == total, 60), service.log()


@pytest.mark.end_to_end
def test_message_in_the_queue_is_readable_json(service):
    seen = []

    class Recorder:
        def send_message(self, **message):
            seen.append(message)
            return {"MessageId": "1"}

    with service.reached(), service.app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.sqs = lambda **_: Recorder()
        service.probe("leave_trace", "ordner").apply_async(connection=connection)
    (message,) = seen
    assert message["QueueUrl"] == service.url()
    assert message["MessageGroupId"] == "g"
    assert json.loads(json.loads(message["MessageBody"])["body"])[0] == ["ordner"]


def test_message_when_the_answer_does_not_confirm_it_then_is_an_error(service, monkeypatch):
    """The page of a proxy has a good status, too; boto3 takes it for an answer with nothing in it."""
    asked = []

    class Proxy:
        def send_message(self, **message):
            asked.append(message)
            return {}

    with service.reached(), service.app.connection_for_write() as connection:
        monkeypatch.setattr(module("brokers.sqs.transport").Channel, "sqs", lambda *_, **__: Proxy())
        with pytest.raises(OperationalError, match="did not confirm"):
            service.probe("leave_trace", "folder").apply_async(connection=connection)
    assert len(asked) > 1  # It was tried again.
