"""`metrics`: the last hours of the broker, drawn."""

from __future__ import annotations

import click

from ... import cloudwatch as metrics
from ...charts import period_seconds, show
from ...cloudwatch import Metric
from ...commands import Number
from ...environment import find
from ...terminal import Command, live_options

TITLES = {
    Metric("MessageReadyCount", "Maximum"): "waiting",
    Metric("MessageUnacknowledgedCount", "Maximum"): "in flight",
    Metric("ConsumerCount", "Maximum"): "consumers",
    Metric("PublishRate", "Average"): "sent, /s",
    Metric("AckRate", "Average"): "done, /s",
}
"""What each metric is called here.

Of a broker of RabbitMQ 4, Amazon MQ measures all queues together; `queues` tells them apart.
https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-4.html
https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-logging-monitoring.html
"""


@click.command(name="metrics", cls=Command, examples=("metrics", "metrics --hours 24 --html metrics.html"))
@click.option("--hours", type=Number(0.1, 336), default=3, show_default=True, help="How far back.")
@click.option("--html", "file", type=click.Path(dir_okay=False, writable=True), help="Write a page with curves, too.")
@live_options
def command(hours: float, file: str | None, environment: str, as_json: bool) -> None:
    """Draw depth, consumers and throughput of the broker in the last hours, dead letters and delayed messages included.

    They come from CloudWatch, which is some minutes late.
    """
    here = find(environment)
    broker = f"{here.contract.service}-{environment}"
    dimensions = {"Broker": broker}
    series = metrics.read(
        here.client("cloudwatch"),
        "AWS/AmazonMQ",
        {broker: dimensions},
        list(TITLES),
        round(hours * 3600),
        period_seconds(hours),
    )
    show(broker, "broker", series, TITLES, hours, file, as_json=as_json)
