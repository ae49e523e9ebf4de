"""An emulator of AWS in a process of its own, with what the contract asks for in it.

Use `running()` from Python. `python -m dev.emulator` prints the environment variables that lead a
service to it, as one line of JSON, and runs until its standard input ends; so it never outlives
whoever started it, not even one that was killed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
CONTRACT = Path(os.environ.get("CONTRACT_FILE") or PROJECT / "contract.json")

ENVIRONMENT = "development"
ACCOUNT = "123456789012"


def write_hurried_contract(path: Path) -> Path:
    """Write a contract whose polls and pauses take a second, for those who wait and watch.

    Put the path into `CONTRACT_FILE`, and emulator and service both read it.
    """
    contract = json.loads((PROJECT / "contract.json").read_text(encoding="utf-8"))
    contract["wait_time_seconds"] = 1
    for queue in contract["queues"]:
        queue["retry_backoff_seconds"] = 0.1
    path.write_text(json.dumps(contract), encoding="utf-8")
    return path


class EmulatorError(RuntimeError):
    """The emulator did not start; the message is what it printed."""


@contextlib.contextmanager
def running(visibility_timeout_seconds: int | None = None, contract: Path = CONTRACT) -> Iterator[dict[str, str]]:
    """Run an emulator and yield the environment variables that lead a service to it.

    Args:
        visibility_timeout_seconds: of every queue, instead of the contract's; for tests that wait
            for a second delivery.
        contract: whose queues there are to be.

    Raises:
        EmulatorError: it did not start.
    """
    command = [sys.executable, "-m", "dev.emulator"]
    if visibility_timeout_seconds is not None:
        command.append(f"--visibility-timeout-seconds={visibility_timeout_seconds}")
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        env={**os.environ, "CONTRACT_FILE": str(contract)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Out of reach of the terminal's Ctrl-C: workers that stop still have messages to delete.
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise EmulatorError(f"the emulator ended with status {process.wait()}; see its output above")
            yield dict(json.loads(line))
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def environment_of(contract: Mapping[str, Any], url: str) -> dict[str, str]:
    """Return the environment variables that lead a service to an emulator, but for those of its results."""
    return {
        "ENVIRONMENT": ENVIRONMENT,
        "QUEUE_URL_BASE": f"{url}/{ACCOUNT}",
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": contract["region"],
        "AWS_ACCESS_KEY_ID": "EMULATOREMULATOR",
        "AWS_SECRET_ACCESS_KEY": "emulator/with+odd@characters",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def queue_names(contract: Mapping[str, Any], queue: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of a queue and of its dead-letter queue."""
    name = f"{contract['service']}-{ENVIRONMENT}-{queue['name']}"
    suffix = ".fifo" if contract["broker"] == "sqs-fifo" else ""
    return name + suffix, f"{name}-dlq{suffix}"


def create_queues(sqs: Any, contract: Mapping[str, Any], visibility_timeout_seconds: int | None) -> None:
    """Create every queue with its dead-letter queue."""
    # As AWS creates a queue today.
    common = {"SqsManagedSseEnabled": "true", "MaximumMessageSize": str(contract["max_message_bytes"])}
    if contract["broker"] == "sqs-fifo":
        common["FifoQueue"] = "true"
    for queue in contract["queues"]:
        name, dead_letter_name = queue_names(contract, queue)
        dead_letters = sqs.create_queue(
            QueueName=dead_letter_name,
            Attributes={
                **common,
                "MessageRetentionPeriod": str(contract["dead_letter_retention_seconds"]),
            },
        )["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])
        redrive = {
            "deadLetterTargetArn": arn["Attributes"]["QueueArn"],
            "maxReceiveCount": queue["max_receive_count"],
        }
        visibility_timeout = visibility_timeout_seconds or queue["visibility_timeout_seconds"]
        sqs.create_queue(
            QueueName=name,
            Attributes={
                **common,
                "VisibilityTimeout": str(visibility_timeout),
                "MessageRetentionPeriod": str(queue["retention_seconds"]),
                "ReceiveMessageWaitTimeSeconds": str(contract["wait_time_seconds"]),
                "RedrivePolicy": json.dumps(redrive),
            },
        )


def main() -> None:
    """Run the emulator until standard input ends."""
    import boto3

    from . import moto_gaps
    from .results import create_results

    parser = argparse.ArgumentParser(prog="python -m dev.emulator", description=__doc__)
    parser.add_argument("--visibility-timeout-seconds", type=int)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; %(default)s unless named")
    parser.add_argument("--port", type=int, default=0, help="a free one unless named")
    arguments = parser.parse_args()
    contract = json.loads(CONTRACT.read_text(encoding="utf-8"))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        environment = environment_of(contract, stack.enter_context(moto_gaps.server(arguments.host, arguments.port)))
        os.environ.update(environment)
        environment.update(create_results(contract, stack))
        # Last, so that whoever finds the last queue finds everything.
        create_queues(boto3.client("sqs"), contract, arguments.visibility_timeout_seconds)
        print(json.dumps(environment), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
