"""Recent attempts of tasks and their log lines, from what the workers log.

In AWS, CloudWatch Logs Insights searches the workers' log group. In `make dev`, the workers' output is in a file.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

LOG_FILE = "WORKER_LOG_FILE"
"""Environment variable with the path of the workers' output, which `make dev` sets."""

MOST_LINES = 500
"""Most log lines of one task that are returned."""

POLL_SECONDS = 0.5
LONGEST_QUERY_SECONDS = 20


class QueryError(OSError):
    """CloudWatch Logs did not complete a query."""


class Attempts(Protocol):
    """Where attempts are found."""

    is_live: bool
    """Whether it is up to date, and costs nothing to ask."""

    def recent(self, hours: float, count: int, task: str = "", outcome: str = "") -> list[dict[str, Any]]:
        """Return the log lines with the outcome of attempts, newest first.

        Args:
            hours: time span, up to now; a file has what fits into it.
            count: most attempts to return.
            task: a part of the names of their tasks.
            outcome: their outcome; empty for all.
        """

    def lines(self, task_id: str, hours: float) -> list[dict[str, Any]]:
        """Return the log lines of a task, oldest first, at most `MOST_LINES`."""


def is_local() -> bool:
    """Return whether the environment is that of `make dev`."""
    return LOG_FILE in os.environ


def find(env: Any) -> Attempts:
    """Return where the attempts of an environment are found."""
    return LogFile(Path(os.environ[LOG_FILE])) if is_local() else LogsInsights(env)


@dataclass
class LogFile:
    """The output of workers in a file, and in one that it replaced, `<name>.1`."""

    path: Path
    is_live = True

    def recent(self, hours: float, count: int, task: str = "", outcome: str = "") -> list[dict[str, Any]]:
        """Return the log lines with the outcome of attempts, newest first."""
        ended = (line for line in self._all() if "outcome" in line and outcome in ("", line["outcome"]))
        return list(deque((line for line in ended if task in str(line.get("task", ""))), count))[::-1]

    def lines(self, task_id: str, hours: float) -> list[dict[str, Any]]:
        """Return the log lines of a task, oldest first."""
        return list(deque((line for line in self._all() if line.get("task_id") == task_id), MOST_LINES))

    def _all(self) -> Iterator[dict[str, Any]]:
        for path in (self.path.with_name(f"{self.path.name}.1"), self.path):
            if path.exists():
                with path.open(encoding="utf-8", errors="replace") as file:
                    yield from objects(file)


@dataclass
class LogsInsights:
    """The log group of the workers in CloudWatch; a query is charged by the size of the logs in its time span."""

    env: Any
    is_live = False

    def recent(self, hours: float, count: int, task: str = "", outcome: str = "") -> list[dict[str, Any]]:
        """Return the log lines with the outcome of attempts, newest first."""
        filters = ["ispresent(outcome)"]
        filters += [f"task like {_quoted(task)}"] if task else []
        filters += [f"outcome = {_quoted(outcome)}"] if outcome else []
        return self._ask(f"filter {' and '.join(filters)} | sort @timestamp desc | limit {count}", hours)

    def lines(self, task_id: str, hours: float) -> list[dict[str, Any]]:
        """Return the log lines of a task, oldest first."""
        return self._ask(f"filter task_id = {_quoted(task_id)} | sort @timestamp asc | limit {MOST_LINES}", hours)

    def _ask(self, query: str, hours: float) -> list[dict[str, Any]]:
        """Run a query and return the log lines that it found.

        Raises:
            QueryError: the query failed, or took too long.
        """
        logs, now = self.env.client("logs"), time.time()
        query_id = logs.start_query(
            logGroupName=self.env.contract.log_group_name(self.env.environment),
            startTime=int(now - hours * 3_600),
            endTime=int(now) + 1,
            queryString=f"fields @timestamp, @message | {query}",
        )["queryId"]
        end = time.monotonic() + LONGEST_QUERY_SECONDS
        while (answer := logs.get_query_results(queryId=query_id))["status"] in ("Scheduled", "Running"):
            if time.monotonic() > end:
                logs.stop_query(queryId=query_id)
                raise QueryError(f"CloudWatch Logs took more than {LONGEST_QUERY_SECONDS} s; choose fewer hours")
            time.sleep(POLL_SECONDS)
        if answer["status"] != "Complete":
            raise QueryError(f"the query of CloudWatch Logs ended with the status {answer['status']}")
        rows = ({field["field"]: field["value"] for field in row} for row in answer["results"])
        return list(objects(row.get("@message", "") for row in rows))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the lines that are JSON objects."""
    for line in lines:
        try:
            read = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(read, dict):
            yield read
