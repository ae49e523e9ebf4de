"""What workers tell CloudWatch, on which scaling and alarms build."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from botocore.exceptions import EndpointConnectionError

from library.support import CONTRACT, broker, eventually, module, notes, running_service

reporting = module("brokers.rabbitmq.reporting")

QUEUE = CONTRACT["queues"][0]["name"]


def told(service, metric, queue):
    """Return what was told last of a queue, if anything."""
    now = datetime.now(timezone.utc)
    found = service.client("cloudwatch").get_metric_statistics(
        Namespace=f"{CONTRACT['service']}-development",
        MetricName=metric,
        Dimensions=[{"Name": "Queue", "Value": queue}],
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=["Maximum"],
    )["Datapoints"]
    return max((point["Maximum"] for point in found), default=None)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service without a worker."""
    with running_service(tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.mark.end_to_end
def test_worker_tells_what_waits_who_works_and_what_is_dead(service, tmp_path):
    with service.reached():
        for _ in range(3):
            service.send("leave_trace", str(tmp_path))
        reporter = reporting.Reporter(service.app, service.contract, [service.queue])
        measured = {(each["MetricName"], each["Dimensions"][0]["Value"]): each["Value"] for each in reporter.measured()}
    dead = f"{QUEUE}-dlq"
    assert measured == {("MessagesWaiting", QUEUE): 3, ("Workers", QUEUE): 0, ("MessagesWaiting", dead): 0}
    service.start_worker()
    assert eventually(lambda: told(service, "Workers", QUEUE) == 1), service.log()
    assert told(service, "MessagesWaiting", dead) == 0
    assert eventually(lambda: len(notes(tmp_path)) == 3), service.log()


@pytest.mark.end_to_end
def test_worker_works_on_if_cloudwatch_does_not_hear(service, tmp_path):
    service.start_worker(label="unheard", AWS_ENDPOINT_URL_CLOUDWATCH="http://127.0.0.1:9")
    assert eventually(lambda: "queue metrics not published" in service.log("unheard")), service.log("unheard")
    service.send("leave_trace", str(tmp_path))
    assert eventually(lambda: notes(tmp_path)), service.log("unheard")
    broker.empty(service, dead=True)


def test_a_report_that_fails_is_told_and_survived(monkeypatch, caplog):
    app = module("service").app()
    reporter = reporting.Reporter(app, app.contract, list(app.contract.queues))

    def fail():
        raise EndpointConnectionError(endpoint_url="https://monitoring")

    monkeypatch.setattr(reporter, "measured", fail)
    reporter.report()
    assert "queue metrics not published to CloudWatch" in caplog.text
