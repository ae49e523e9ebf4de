"""What CloudWatch knows of the queues.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ...contract import Queue
from .place import Place


@dataclass(frozen=True)
class Metric:
    """A metric of a queue, and how its values of a period become one."""

    name: str
    statistic: str


AGE = Metric("ApproximateAgeOfOldestMessage", "Maximum")
DEPTH = Metric("ApproximateNumberOfMessagesVisible", "Maximum")
SENT = Metric("NumberOfMessagesSent", "Sum")
DONE = Metric("NumberOfMessagesDeleted", "Sum")
EMPTY_RECEIVES = Metric("NumberOfEmptyReceives", "Sum")
RECEIVED = Metric("NumberOfMessagesReceived", "Sum")

RECENT_SECONDS = 900
"""CloudWatch is some minutes late."""


@dataclass(frozen=True)
class Series:
    """Values of a metric over time, oldest first; nothing where CloudWatch has none."""

    starts_at_seconds: float
    """When the first period began, as seconds since 1970."""
    period_seconds: int
    values: tuple[float | None, ...]


def read(
    place: Place, queues: Sequence[Queue], metrics: Sequence[Metric], seconds: int, period_seconds: int
) -> dict[tuple[str, str], Series]:
    """Return metrics of queues, by queue and metric name, in a request for every 500.

    Args:
        place: the environment.
        queues: which queues.
        metrics: which metrics.
        seconds: how far back.
        period_seconds: of one value; a multiple of 60.
    """
    wanted = [(queue, metric) for queue in queues for metric in metrics]
    end = datetime.now(timezone.utc).replace(second=0, microsecond=0) + timedelta(minutes=1)
    count = max(1, seconds // period_seconds)
    start = end - timedelta(seconds=count * period_seconds)
    found: dict[str, dict[float, float]] = {}
    for first in range(0, len(wanted), 500):
        request: dict[str, Any] = {
            "MetricDataQueries": [
                _query(place, index, queue, metric, period_seconds)
                for index, (queue, metric) in enumerate(wanted[first : first + 500], first)
            ],
            "StartTime": start,
            "EndTime": end,
            "ScanBy": "TimestampAscending",
        }
        while True:
            answer = place.client("cloudwatch").get_metric_data(**request)
            for result in answer["MetricDataResults"]:
                values = zip(result["Timestamps"], result["Values"], strict=True)
                found.setdefault(result["Id"], {}).update({at.timestamp(): value for at, value in values})
            if not answer.get("NextToken"):
                break
            request["NextToken"] = answer["NextToken"]
    return {
        (queue.name, metric.name): _series(found.get(f"m{index}", {}), start.timestamp(), period_seconds, count)
        for index, (queue, metric) in enumerate(wanted)
    }


def latest(place: Place, metric: Metric) -> dict[str, float]:
    """Return the newest value of a metric for each queue that has one."""
    queues = place.contract.queues
    series = read(place, queues, [metric], RECENT_SECONDS, 60)
    known = {queue.name: [v for v in series[queue.name, metric.name].values if v is not None] for queue in queues}
    return {name: values[-1] for name, values in known.items() if values}


def _query(place: Place, index: int, queue: Queue, metric: Metric, period_seconds: int) -> dict[str, Any]:
    return {
        "Id": f"m{index}",
        "MetricStat": {
            "Metric": {
                "Namespace": "AWS/SQS",
                "MetricName": metric.name,
                "Dimensions": [{"Name": "QueueName", "Value": place.name(queue)}],
            },
            "Period": period_seconds,
            "Stat": metric.statistic,
        },
    }


def _series(values: dict[float, float], start: float, period_seconds: int, count: int) -> Series:
    placed: list[float | None] = [None] * count
    for at, value in values.items():
        index = int((at - start) // period_seconds)
        if 0 <= index < count:
            placed[index] = value
    return Series(start, period_seconds, tuple(placed))
