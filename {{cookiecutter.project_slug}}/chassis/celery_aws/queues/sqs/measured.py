"""Metrics of the queues in CloudWatch.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
"""

from __future__ import annotations

from collections.abc import Sequence

from ... import cloudwatch
from ...cloudwatch import Metric, Series
from ...contract import Queue
from ...environment.sqs import Environment

AGE = Metric("ApproximateAgeOfOldestMessage", "Maximum")
DEPTH = Metric("ApproximateNumberOfMessagesVisible", "Maximum")
SENT = Metric("NumberOfMessagesSent", "Sum")
DONE = Metric("NumberOfMessagesDeleted", "Sum")
EMPTY_RECEIVES = Metric("NumberOfEmptyReceives", "Sum")
RECEIVED = Metric("NumberOfMessagesReceived", "Sum")

RECENT_SECONDS = 900
"""Time span for the latest value; CloudWatch is some minutes late."""


def read(
    env: Environment, queues: Sequence[Queue], metrics: Sequence[Metric], seconds: int, period_seconds: int
) -> dict[tuple[str, str], Series]:
    """Return metrics of queues, by queue and metric name.

    Args:
        env: the environment.
        queues: the queues.
        metrics: the metrics.
        seconds: time span, up to now.
        period_seconds: period of one value, a multiple of 60.
    """
    subjects = {queue.name: {"QueueName": env.name(queue)} for queue in queues}
    return cloudwatch.read(env.client("cloudwatch"), "AWS/SQS", subjects, metrics, seconds, period_seconds)


def latest(env: Environment, metric: Metric) -> dict[str, float]:
    """Return the latest value of a metric for each queue that has data."""
    queues = env.contract.queues
    series = read(env, queues, [metric], RECENT_SECONDS, 60)
    known = {queue.name: [v for v in series[queue.name, metric.name].values if v is not None] for queue in queues}
    return {name: values[-1] for name, values in known.items() if values}
