"""Reads metrics from CloudWatch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

QUERIES_PER_REQUEST = 500
"""https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html"""


@dataclass(frozen=True)
class Metric:
    """A metric and its statistic."""

    name: str
    statistic: str


@dataclass(frozen=True)
class Series:
    """Values of a metric, oldest first; None where CloudWatch has no data."""

    starts_at_seconds: float
    """Start of the first period, in seconds since 1970."""
    period_seconds: int
    values: tuple[float | None, ...]


def read(
    cloudwatch: Any,
    namespace: str,
    subjects: Mapping[str, Mapping[str, str]],
    metrics: Sequence[Metric],
    seconds: int,
    period_seconds: int,
) -> dict[tuple[str, str], Series]:
    """Return metrics by subject and metric name, with one request per `QUERIES_PER_REQUEST`.

    Args:
        cloudwatch: a boto3 client of CloudWatch.
        namespace: namespace of the metrics.
        subjects: dimensions of each subject, by its name.
        metrics: the metrics to read.
        seconds: time span, up to now.
        period_seconds: period of one value, a multiple of 60.
    """
    wanted = [(subject, metric) for subject in subjects for metric in metrics]
    end = datetime.now(timezone.utc).replace(second=0, microsecond=0) + timedelta(minutes=1)
    count = max(1, seconds // period_seconds)
    start = end - timedelta(seconds=count * period_seconds)
    queries = [
        {
            "Id": f"m{index}",
            "MetricStat": {
                "Metric": {
                    "Namespace": namespace,
                    "MetricName": metric.name,
                    "Dimensions": [{"Name": name, "Value": of} for name, of in subjects[subject].items()],
                },
                "Period": period_seconds,
                "Stat": metric.statistic,
            },
        }
        for index, (subject, metric) in enumerate(wanted)
    ]
    found = _values(cloudwatch, queries, start, end)
    return {
        (subject, metric.name): _series(found.get(f"m{index}", {}), start.timestamp(), period_seconds, count)
        for index, (subject, metric) in enumerate(wanted)
    }


def _values(
    cloudwatch: Any, queries: Sequence[Mapping[str, Any]], start: datetime, end: datetime
) -> dict[str, dict[float, float]]:
    """Return the values of each query by its id, by seconds since 1970."""
    found: dict[str, dict[float, float]] = {}
    for first in range(0, len(queries), QUERIES_PER_REQUEST):
        request: dict[str, Any] = {
            "MetricDataQueries": queries[first : first + QUERIES_PER_REQUEST],
            "StartTime": start,
            "EndTime": end,
            "ScanBy": "TimestampAscending",
        }
        while True:
            answer = cloudwatch.get_metric_data(**request)
            for result in answer["MetricDataResults"]:
                values = zip(result["Timestamps"], result["Values"], strict=True)
                found.setdefault(result["Id"], {}).update({at.timestamp(): value for at, value in values})
            if not answer.get("NextToken"):
                break
            request["NextToken"] = answer["NextToken"]
    return found


def _series(values: dict[float, float], start: float, period_seconds: int, count: int) -> Series:
    placed: list[float | None] = [None] * count
    for at, value in values.items():
        index = int((at - start) // period_seconds)
        if 0 <= index < count:
            placed[index] = value
    return Series(start, period_seconds, tuple(placed))
