"""Sending many messages: few waits, nothing too large, and who was not sent is known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from amqp.exceptions import MessageNacked, RecoverableConnectionError
from celery import group

from library.support import eventually, module, notes, running_service

batching = module("brokers.rabbitmq.batching")


class RecordingChannel:
    """Answers as the broker would, but keeps not what a test wants it not to keep."""

    def __init__(self, refuse=lambda body, attempt: None):
        self.connection = SimpleNamespace(contract=SimpleNamespace(max_message_bytes=1000))
        self.requests = []
        self.refuse = refuse
        self.attempts = {}

    def publish_all(self, messages):
        self.requests.append([message.body for message, _, _ in messages])
        failed = {}
        for place, (message, _, _) in enumerate(messages):
            self.attempts[message.body] = self.attempts.get(message.body, 0) + 1
            if error := self.refuse(message.body, self.attempts[message.body]):
                failed[place] = error
        return failed


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(batching.time, "sleep", lambda _: None)


def flush(channel, bodies):
    """Send bodies in a batch; return whose were not sent."""
    batch = batching.Batch(channel)
    for body in bodies:
        headers = {"id": body, "task": "t"}
        message = SimpleNamespace(body=body, properties={"application_headers": headers})
        batch.publish(message, exchange="tasks", routing_key="high")
    try:
        batch.flush()
    except batching.NotAllSentError as error:
        return [task_id for task_id, _, _ in error.failed]
    return []


def test_a_hundred_are_waited_for_at_a_time():
    channel = RecordingChannel()
    assert flush(channel, [f"{number:03}" for number in range(250)]) == []
    assert [len(request) for request in channel.requests] == [100, 100, 50]


def test_what_the_broker_could_not_keep_is_sent_again_alone_then_reported():
    channel = RecordingChannel(lambda body, attempt: MessageNacked() if body == "b" and attempt < 3 else None)
    assert flush(channel, ["a", "b", "c"]) == []
    assert channel.requests == [["a", "b", "c"], ["b"], ["b"]]
    channel = RecordingChannel(lambda body, attempt: MessageNacked() if body == "b" else None)
    assert flush(channel, ["a", "b", "c"]) == ["b"]
    assert len(channel.requests) == batching.ATTEMPTS


def test_what_no_queue_would_have_is_not_sent_again():
    channel = RecordingChannel(lambda body, attempt: LookupError("gone") if body == "b" else None)
    assert flush(channel, ["a", "b", "c"]) == ["b"]
    assert len(channel.requests) == 1


def test_after_a_connection_that_ended_nothing_is_waited_for_again():
    class Broken(RecordingChannel):
        def publish_all(self, messages):
            if self.requests:
                raise RecoverableConnectionError("no way")
            return super().publish_all(messages)

    channel = Broken()
    bodies = [f"{number:03}" for number in range(350)]
    assert flush(channel, bodies) == bodies[100:]
    assert len(channel.requests) == 1


def test_a_message_too_large_is_refused_before_anything_is_sent():
    channel = RecordingChannel()
    with pytest.raises(batching.MessageTooLargeError, match=r"has [0-9,]+ bytes, but max_message_bytes in contract"):
        flush(channel, ["a", "x" * 1000])
    assert channel.requests == []


def test_a_block_that_raises_sends_nothing():
    app = module("service").app()
    with pytest.raises(KeyError), app.batching():
        raise KeyError


@pytest.mark.end_to_end
def test_everything_sent_in_a_block_goes_out_at_its_end_and_is_done(tmp_path_factory, tmp_path):
    with running_service(tmp_path_factory.mktemp("logs")) as service:
        folder = str(tmp_path)
        with service.reached():
            with service.app.batching():
                for _ in range(15):
                    service.probe("leave_trace", folder).delay()
                group([service.probe("leave_trace", folder) for _ in range(5)], app=service.app).apply_async()
                service.probe("leave_trace", folder, countdown=1).delay()
                assert service.waiting() == 0
            with pytest.raises(batching.MessageTooLargeError):
                service.send("leave_trace", "x" * service.contract.max_message_bytes)
        assert service.waiting() == 21
        service.start_worker()
        assert eventually(lambda: len(notes(tmp_path)) == 21), service.log()
        assert eventually(lambda: service.waiting() == 0)
