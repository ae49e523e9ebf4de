"""Tells CloudWatch how full the queue of a worker is, since Amazon MQ does not.

Of RabbitMQ 4, Amazon MQ gives CloudWatch no metric of single queues, and scaling and alarms need them. So each worker
tells once a minute how many messages wait, and how many workers there are.
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
"""What AWS recommends to ask for queues at the most, and the period of the alarms."""

FIRST_AFTER_SECONDS = 5
"""Until then a worker that has just started counts itself as well."""

PATIENCE = Config(connect_timeout=5, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
"""A minute later there are newer numbers."""


class Reporting(bootsteps.StartStopStep):
    """Reports in a thread of its own: CloudWatch may take its time, and the work must not wait for it.

    https://docs.celeryq.dev/en/stable/userguide/extending.html
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _thread: threading.Thread | None = None

    def start(self, worker_consumer: Any) -> None:
        """Begin when the worker has begun to consume; it does so anew after each lost connection."""
        app = worker_consumer.app
        served = [app.queue_served(queue.name) for queue in worker_consumer.task_consumer.queues]
        if not Reporting._thread:
            reporter = Reporter(app, app.contract, served)
            Reporting._thread = threading.Thread(target=reporter.run, name="reporting", daemon=True)
            Reporting._thread.start()


class Reporter:
    """Knows how full the queues of a worker are, and says so."""

    def __init__(self, app: Any, contract: Contract, queues: list[Queue]) -> None:
        self.app = app
        self.contract = contract
        self.queues = queues

    def run(self) -> None:
        """Report again and again, for as long as the worker lives."""
        pause = threading.Event()
        pause.wait(FIRST_AFTER_SECONDS)
        while True:
            self.report()
            pause.wait(EVERY_SECONDS)

    def report(self) -> None:
        """Report once; that it cannot be done must not stop the work."""
        try:
            client = boto3.client("cloudwatch", region_name=self.contract.region, config=PATIENCE)
            namespace = f"{self.contract.service}-{self.app.settings.environment}"
            client.put_metric_data(Namespace=namespace, MetricData=self.measured())
        except (BotoCoreError, ClientError, OperationalError, OSError) as error:
            logger.warning("CloudWatch does not hear how full the queues are: %r", error)

    def measured(self) -> list[dict[str, Any]]:
        """Return what there is to tell: of each queue and dead-letter queue what waits, and of queues who takes it.

        Raises:
            OSError: the broker is out of reach.
            kombu.exceptions.OperationalError: the same.
        """
        found = []
        with self.app.connection_for_write() as connection:
            channel = connection.default_channel
            for queue in self.queues:
                for name in (queue.name, self.contract.dead_letter_queue_name(queue, "")):
                    told = channel.queue_declare(name, passive=True)
                    found.append(_metric("MessagesWaiting", name, told.message_count))
                    if name == queue.name:
                        found.append(_metric("Workers", name, told.consumer_count))
        return found


def _metric(metric: str, queue: str, value: int) -> dict[str, Any]:
    return {"MetricName": metric, "Dimensions": [{"Name": "Queue", "Value": queue}], "Value": value, "Unit": "Count"}
