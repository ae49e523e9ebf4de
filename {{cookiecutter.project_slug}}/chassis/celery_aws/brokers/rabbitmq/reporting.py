"""Publishes metrics of a worker's queue to CloudWatch, since Amazon MQ does not.

For RabbitMQ 4, Amazon MQ has no metrics of single queues, which scaling and alarms need. So each
worker publishes the number of waiting messages and of workers once a minute.
https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-4.html
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from celery import bootsteps
from kombu.exceptions import OperationalError

from ...contract import Contract, Queue

logger = logging.getLogger(__name__)

EVERY_SECONDS = 60
"""The shortest interval that AWS recommends for queries of queues, and the period of the alarms."""

FIRST_AFTER_SECONDS = 5
"""Delay of the first report, so that a new worker is a consumer by then."""

CLIENT_CONFIG = Config(connect_timeout=5, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
"""Short timeouts: there are newer values a minute later."""


class Reporting(bootsteps.StartStopStep):
    """Publishes metrics in a separate thread, because CloudWatch may be slow.

    https://docs.celeryq.dev/en/stable/userguide/extending.html
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _thread: threading.Thread | None = None

    def start(self, worker_consumer: Any) -> None:
        """Start when the worker first starts to consume; it restarts consuming after a lost connection."""
        app = worker_consumer.app
        if not Reporting._thread:
            reporter = Reporter(app, app.contract, app.queues_consumed)
            Reporting._thread = threading.Thread(target=reporter.run, name="reporting", daemon=True)
            Reporting._thread.start()


class Reporter:
    """Publishes the metrics of a worker's queues."""

    def __init__(self, app: Any, contract: Contract, queues: list[Queue]) -> None:
        self.app = app
        self.contract = contract
        self.queues = queues

    def run(self) -> None:
        """Report every `EVERY_SECONDS`, for the life of the worker."""
        timer = threading.Event()
        timer.wait(FIRST_AFTER_SECONDS)
        while True:
            self.report()
            timer.wait(EVERY_SECONDS)

    def report(self) -> None:
        """Report once; errors are logged only."""
        try:
            client = boto3.client("cloudwatch", region_name=self.contract.region, config=CLIENT_CONFIG)
            namespace = f"{self.contract.service}-{self.app.settings.environment}"
            client.put_metric_data(Namespace=namespace, MetricData=self.measured())
        except (BotoCoreError, ClientError, OperationalError, OSError) as error:
            logger.warning("queue metrics not published to CloudWatch: %r", error)

    def measured(self) -> list[dict[str, Any]]:
        """Return waiting messages of each queue and dead-letter queue, and the workers of each queue.

        Raises:
            OSError: the broker is unavailable.
            kombu.exceptions.OperationalError: the broker is unavailable.
        """
        found = []
        with self.app.connection_for_write() as connection:
            channel = connection.default_channel
            for queue in self.queues:
                for name in (queue.name, self.contract.dead_letter_queue_name(queue, "")):
                    counts = channel.queue_declare(name, passive=True)
                    found.append(_metric("MessagesWaiting", name, counts.message_count))
                    if name == queue.name:
                        found.append(_metric("Workers", name, counts.consumer_count))
        return found


def _metric(metric: str, queue: str, value: int) -> dict[str, Any]:
    return {"MetricName": metric, "Dimensions": [{"Name": "Queue", "Value": queue}], "Value": value, "Unit": "Count"}
