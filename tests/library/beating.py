"""A beat that really runs, for the end-to-end tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from library.support import IS_FIFO, PROJECT, contract

SHIFTED = """
import sys
from datetime import datetime
from celery_aws import beat, cli
start, now, started = datetime.fromisoformat(sys.argv.pop()), beat.now, []
beat.now = lambda: start + (now() - (started or started.append(now()) or started)[0])
cli.run_command("{package}")
"""
"""Runs the command `beat` with a clock that tells a time when the schedules are set up."""


def schedule_each_minute(running: Any, folder: Path) -> None:
    """Have the contract of a running service state a schedule whose tasks leave notes in a folder."""
    path = Path(running.environment["CONTRACT_FILE"])
    stated = json.loads(path.read_text(encoding="utf-8"))
    about = {
        "name": "each-minute",
        "task": "library.probes.leave_trace",
        "queue": running.queue.name,
        "args": [str(folder)],
    }
    stated["schedules"] = [{**about, "rate_minutes": 1, **({"group": "g"} if IS_FIFO else {})}]
    path.write_text(json.dumps(stated), encoding="utf-8")


@contextmanager
def beating(running: Any, first_due: datetime, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a beat whose first task is due at a time, a second after it has started; yield it with its log."""
    start = (first_due - timedelta(seconds=1)).isoformat()
    path = running.logs / f"beat-{first_due:%H%M}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SHIFTED.format(package=contract.package), "beat", start],
            cwd=PROJECT,
            env={**running.client_environment(), "LIVENESS_DIRECTORY": str(running.logs), **variables},
            stdout=log,
            stderr=log,
        )
    try:
        yield process, path
    finally:
        process.kill()
        process.wait()


def sent_by(path: Path) -> list[str]:
    """Return the ids of the tasks that a beat has sent, from its log."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    return [line["task_id"] for line in lines if line["level"] == "INFO" and "task_id" in line]
