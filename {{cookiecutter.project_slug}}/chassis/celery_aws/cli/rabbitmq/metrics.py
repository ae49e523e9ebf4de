"""`metrics`: charts of the broker."""

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
"""Display name of each metric.

For RabbitMQ 4, Amazon MQ has no metrics per queue; the command `queues` shows each queue.
https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-4.html
https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-logging-monitoring.html
"""


@click.command(name="metrics", cls=Command, examples=("metrics", "metrics --hours 24 --html metrics.html"))
@click.option("--hours", type=Number(0.1, 336), default=3, show_default=True, help="Time span.")
@click.option("--html", "file", type=click.Path(dir_okay=False, writable=True), help="Also write an HTML page.")
@live_options
def command(hours: float, file: str | None, environment: str, as_json: bool) -> None:
    """Show charts of depth, consumers and throughput.

    They are those of the broker, over all queues. The data is from CloudWatch, and some minutes old.
    """
    env = find(environment)
    broker = f"{env.contract.service}-{environment}"
    dimensions = {"Broker": broker}
    series = metrics.read(
        env.client("cloudwatch"),
        "AWS/AmazonMQ",
        {broker: dimensions},
        list(TITLES),
        round(hours * 3600),
        period_seconds(hours),
    )
    show(broker, "broker", series, TITLES, hours, file, as_json=as_json)
