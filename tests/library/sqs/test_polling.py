"""When the event loop of a worker asks SQS for more."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import ClassVar

import pytest
from kombu.asynchronous import Hub

from library.support import module

polling = module("brokers.sqs.polling")
transport = module("brokers.sqs.transport")


def test_call_when_made_soon_by_the_event_loop_then_is_not_left_to_its_next_event():
    hub, called = Hub(), []
    reader, writer = os.pipe()
    hub.add_reader(reader, lambda: None)
    hub.call_later(0.01, lambda: None)  # Ends the first wait for an event.
    channel = SimpleNamespace(hub=hub)
    hub.call_soon(lambda: polling.PollingChannel.soon(channel, called.append, "polled"))
    next(hub.create_loop())
    assert called == ["polled"]
    hub.close()
    os.close(writer)


class Clock:
    """An event loop whose time passes when a test says so."""

    def __init__(self, monkeypatch):
        self.now, self.timers = 1_000.0, []
        monkeypatch.setattr(polling, "time", SimpleNamespace(monotonic=lambda: self.now))

    def call_later(self, seconds, call, *args):
        timer = SimpleNamespace(at=self.now + seconds, call=call, args=args, cancelled=False)
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self.timers.append(timer)
        return timer

    def pass_by(self, seconds):
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.at <= end]:
            timer = min(due, key=lambda timer: timer.at)
            self.timers.remove(timer)
            self.now = max(self.now, timer.at)
            if not timer.cancelled:
                timer.call(*timer.args)
        self.now = end


class FakeSqs:
    """Long polls that end when their queue has messages or their time is over."""

    def __init__(self, clock, waiting):
        self.clock, self.waiting, self.polls, self.open, self.timeouts = clock, waiting, [], {}, {}

    def call(self, operation, request, then, timeout_seconds):
        queue = request["QueueUrl"]
        self.polls.append((self.clock.now, queue, request["WaitTimeSeconds"]))
        self.timeouts[queue] = request.get("VisibilityTimeout")
        seconds = 0.01 if self.waiting[queue] else request["WaitTimeSeconds"]
        most = request["MaxNumberOfMessages"]
        self.open[queue] = (self.clock.call_later(seconds, self.answer, queue, then, most), then, most)

    def send(self, queue, count):
        """Send messages; an open poll returns them at once."""
        self.waiting[queue] += count
        timer, then, most = self.open.get(queue, (None, None, 0))
        if timer in self.clock.timers:
            timer.cancel()
            self.answer(queue, then, most)

    def answer(self, queue, then, most):
        count = min(most, self.waiting[queue])
        self.waiting[queue] -= count
        then({"Messages": [{"ReceiptHandle": f"{queue}-{self.clock.now}-{number}"} for number in range(count)]})


class Shared(transport.Channel):
    """A channel of a worker with four slots, whose tasks run until a test ends them."""

    predefined_queues: ClassVar = {
        name: {
            "url": name,
            "queue": SimpleNamespace(managed=name == "urgent"),
            "messages_per_poll": 1,
            "position": position,
            "visibility_timeout_seconds": 660,
        }
        for position, name in enumerate(("urgent", "other"))
    }
    wait_time_seconds = 20
    connection = SimpleNamespace(polling_interval=0.05)

    def __init__(self, clock, waiting, paused):  # Without a connection.
        self.hub = clock
        self._paused = paused
        for name in ("_polling", "_waiting", "_ever_answered"):
            setattr(self, name, set())
        for name in ("_due_since", "_empty_until", "_empty_timers", "_failures", "_dead_lettering"):
            setattr(self, name, {})
        self._consumers_of = {name: (name, None) for name in self.predefined_queues}
        self._calls = FakeSqs(clock, waiting)
        self.started = []
        self._qos = transport.QoS(self)
        self._qos.prefetch_count = 4
        for queue in ("other", "urgent"):
            self._schedule_queue(queue)

    def _take(self, queue, url, received):
        for message in received:
            self.started.append(queue)
            self.qos.append(SimpleNamespace(delivery_info={"routing_key": queue}), message["ReceiptHandle"])

    def end_one(self, queue=None):
        """End the task that has run longest."""
        tag = next(tag for tag, of in self.qos.held.items() if queue in (None, of.delivery_info["routing_key"]))
        self.qos.ack(tag)
        self._resume()


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def shared(clock):
    """Make such a channel; what it holds in the end is forgotten."""
    made = []

    def make(paused=(), **waiting):
        made.append(Shared(clock, waiting, paused))
        return made[0]

    yield make
    made[0].qos.held.clear()


def test_polls_when_both_queues_are_full_then_are_of_the_urgent_one(clock, shared):
    channel = shared(urgent=1_000, other=1_000)
    for _ in range(100):
        clock.pass_by(0.3)
        channel.end_one()
    assert channel.started == ["urgent"] * len(channel.started)
    assert len(channel.started) >= 100


def test_polls_when_the_urgent_queue_is_empty_then_fill_slots_at_once(clock, shared):
    channel = shared(urgent=0, other=2_000)
    clock.pass_by(0.3)
    assert channel.started == ["other"] * 4
    for _ in range(1_200):  # Tasks of 0.1 s in four slots.
        clock.pass_by(0.025)
        channel.end_one()
    assert len(channel.started) >= 1_150
    short = [wait for _, queue, wait in channel.calls.polls if queue == "urgent"][1:]
    assert short and set(short) == {polling.URGENT_WAIT_SECONDS}


def test_polls_when_both_queues_are_empty_then_cost_what_two_workers_cost(clock, shared):
    channel = shared(urgent=0, other=0)
    clock.pass_by(600)
    assert len(channel.calls.polls) <= 2 * 600 / 20


def test_queue_when_paused_then_is_not_polled_and_holds_up_no_other(clock, shared):
    channel = shared(paused={"urgent"}, urgent=1_000, other=1_000)
    clock.pass_by(0.3)
    assert channel.started == ["other"] * 4
    channel.pause(())
    channel.end_one()
    clock.pass_by(0.3)
    assert channel.started == ["other"] * 4 + ["urgent"]


def test_message_when_its_queue_was_paused_during_the_poll_then_is_released(clock, shared):
    channel = shared(urgent=0, other=0)
    released = []
    channel.release_all = released.append
    channel.pause({"urgent"})
    transport.Channel._take(channel, "urgent", "url", [{"ReceiptHandle": "handle"}])
    assert released == [{"handle": ("urgent", "url")}]


def test_worker_when_it_does_not_know_what_is_paused_then_polls_nothing_and_is_overdue(clock, shared):
    channel = shared(paused=None, urgent=1, other=1)
    channel._due_since["urgent"] = began = clock.now  # As when it began to consume.
    channel._schedule_queue("urgent")
    clock.pass_by(100)
    assert not channel.calls.polls
    assert channel.awaits_answers
    assert channel.last_answer == began
    channel.pause(())
    clock.pass_by(1)
    assert sorted(channel.started) == ["other", "urgent"]


def test_urgent_message_when_other_tasks_run_then_takes_the_next_slot(clock, shared):
    channel = shared(urgent=0, other=1_000)
    clock.pass_by(30)
    channel.calls.send("urgent", 1)
    channel.end_one()
    clock.pass_by(0.5)
    assert channel.started == ["other"] * 4 + ["urgent"]


def refuse_urgent(channel):
    """Have every poll of the urgent queue fail at once."""
    real = channel.calls.call

    def call(operation, request, then, timeout_seconds):
        if request["QueueUrl"] == "urgent":
            channel.hub.call_later(0.01, then, polling.Failure("503", "unavailable"))
        else:
            real(operation, request, then, timeout_seconds)

    channel.calls.call = call


def test_polls_of_the_urgent_queue_when_they_fail_then_do_not_stop_others(clock, shared):
    channel = shared(urgent=0, other=0)
    refuse_urgent(channel)
    clock.pass_by(50)
    channel.calls.send("other", 1_000)
    clock.pass_by(25)
    for _ in range(100):
        clock.pass_by(0.1)
        channel.end_one()
    assert len(channel.started) >= 95


def test_polls_when_the_urgent_queue_fills_up_then_are_of_it_again(clock, shared):
    channel = shared(urgent=0, other=0)
    clock.pass_by(30)
    channel.calls.send("urgent", 1_000)
    channel.calls.send("other", 1_000)
    for _ in range(100):
        clock.pass_by(0.3)
        channel.end_one()
    assert channel.started.count("other") <= 5
    assert channel.started.count("urgent") >= 95


def test_worker_when_one_of_its_queues_does_not_answer_then_is_not_alive(clock, shared):
    channel = shared(urgent=0, other=0)
    refuse_urgent(channel)
    clock.pass_by(100)
    assert clock.now - channel.last_answer > channel.answer_due_seconds


def test_queue_when_it_waits_for_the_urgent_one_then_owes_no_answer(clock, shared):
    channel = shared(urgent=1_000, other=1_000)
    for _ in range(1_000):
        clock.pass_by(0.3)
        channel.end_one()
    assert clock.now - channel.last_answer < 1


def test_poll_when_the_queue_is_not_managed_then_states_the_timeout(clock, shared):
    channel = shared(urgent=0, other=0)
    clock.pass_by(1)
    assert channel.calls.timeouts == {"urgent": None, "other": 660}
