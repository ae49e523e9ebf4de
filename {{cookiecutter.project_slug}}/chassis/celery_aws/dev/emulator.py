"""An emulator of AWS in a process of its own, with what the contract asks for in it.

Use `running()` from Python. `python -m celery_aws.dev.emulator` prints the environment variables that lead a
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..contract import read
from . import brokers, results

PROJECT = Path.cwd()
"""The project's root, where `make` and the tests start whatever they start."""
CONTRACT = Path(os.environ.get("CONTRACT_FILE") or PROJECT / "contract.json")

ENVIRONMENT = "development"

HURRIED: dict[str, float] = {
    "wait_time_seconds": 1,
    "dead_letter_retention_seconds": 1_209_600,
    "soft_limit_seconds": 240,
    "hard_limit_seconds": 300,
    "max_countdown_seconds": 300,
    "visibility_timeout_seconds": 660,
    "heartbeat_seconds": 0,
    "retry_backoff_seconds": 0.1,
    "max_receive_count": 5,
    "retention_seconds": 345_600,
    "concurrency": 4,
    "seconds_per_task": 5,
}
"""Numbers that somebody can wait for, and that leave room for what is waited for."""


def write_hurried_contract(path: Path) -> Path:
    """Write a contract for those who wait and watch, whatever the numbers in the project's own.

    Put the path into `CONTRACT_FILE`, and emulator and service both read it.

    Raises:
        ContractError: the project's own breaks rules.
    """
    read(PROJECT / "contract.json")
    contract = json.loads((PROJECT / "contract.json").read_text(encoding="utf-8"))
    for home in (contract, *contract["queues"]):
        home.update({name: number for name, number in HURRIED.items() if name in home})
    path.write_text(json.dumps(contract), encoding="utf-8")
    return path


def import_path() -> str:
    """Return a PYTHONPATH with which other processes import what this one can, installed or not."""
    return os.pathsep.join(filter(None, sys.path))


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
        ContractError: the contract breaks rules.
        EmulatorError: it did not start.
    """
    read(contract)
    command = [sys.executable, "-m", "celery_aws.dev.emulator"]
    if visibility_timeout_seconds is not None:
        command.append(f"--visibility-timeout-seconds={visibility_timeout_seconds}")
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        env={**os.environ, "CONTRACT_FILE": str(contract), "PYTHONPATH": import_path()},
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


def environment_of(contract: Any, url: str) -> dict[str, str]:
    """Return the environment variables that lead a service to an emulator, but for those of its broker and results."""
    return {
        "ENVIRONMENT": ENVIRONMENT,
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": contract.region,
        "AWS_ACCESS_KEY_ID": "EMULATOREMULATOR",
        "AWS_SECRET_ACCESS_KEY": "emulator/with+odd@characters",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def moto(host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Run moto in this process, on a free port of this machine alone unless told otherwise, and yield its URL."""
    from moto.server import ThreadedMotoServer

    brokers.chosen(read(CONTRACT)).prepare_moto()
    server = ThreadedMotoServer(host, port=port, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


def main() -> None:
    """Run the emulator until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m celery_aws.dev.emulator", description=__doc__)
    parser.add_argument("--visibility-timeout-seconds", type=int)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; %(default)s unless named")
    parser.add_argument("--port", type=int, default=0, help="a free one unless named")
    arguments = parser.parse_args()
    contract = read(CONTRACT)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(moto(arguments.host, arguments.port))
        environment = environment_of(contract, url)
        os.environ.update(environment)
        environment.update(results.create(contract, stack))
        # Last, so that whoever finds the last queue finds everything.
        broker, hurry = brokers.chosen(contract), arguments.visibility_timeout_seconds
        environment.update(broker.create(contract, url, ENVIRONMENT, hurry, stack))
        print(json.dumps(environment), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, TimeoutError) as error:  # What it runs is not here, or does not start.
        sys.exit(str(error))
