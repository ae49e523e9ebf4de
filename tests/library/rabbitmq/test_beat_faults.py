"""The beat while the broker is away."""

from __future__ import annotations

import json
import signal
from datetime import datetime, timezone

import pytest

from library.beating import beating, schedule_each_minute, sent_by
from library.support import PROJECT, broker, eventually, running_service

pytestmark = pytest.mark.end_to_end

DUE = datetime(2027, 1, 1, 12, 1, tzinfo=timezone.utc)
ID = "each-minute-2027-01-01T12:01:00Z"


@pytest.fixture
def away(tmp_path_factory, tmp_path):
    """Run a service whose broker can be taken away; yield it, the proxy, and the variables that lead there."""
    with running_service(tmp_path_factory.mktemp("logs")) as running, broker.faulty(running) as (between, variables):
        schedule_each_minute(running, tmp_path)
        yield running, between, variables


def test_beat_when_the_broker_is_back_then_sends_what_was_due(away):
    running, between, variables = away
    between.fault = "refused"
    with beating(running, DUE, **variables) as (process, log):
        assert eventually(lambda: "is tried again" in log.read_text()), log.read_text()
        assert process.poll() is None
        between.fault = ""
        assert eventually(lambda: sent_by(log)), log.read_text()
        assert sent_by(log) == [ID]
        assert running.waiting() == 1


def test_beat_when_stopped_while_the_broker_hangs_then_ends_and_logs(away):
    running, between, variables = away
    between.fault = "hang"
    with beating(running, DUE, **variables) as (process, log):
        assert eventually(lambda: "is tried again" in log.read_text()), log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        lines = map(json.loads, log.read_text().splitlines())
        (error,) = [line for line in lines if line["level"] == "ERROR"]
        assert error["task_id"] == ID
        pattern = (PROJECT / "chassis/terraform/service/beat_rabbitmq.tf").read_text(encoding="utf-8")
        assert f'$.logger = \\"{error["logger"]}\\"' in pattern  # The alarm counts these lines.
