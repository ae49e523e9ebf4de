"""An emulator of AWS in a separate process, with the resources of the contract.

Use `running()` from Python. `python -m celery_aws.dev.emulator` prints the environment variables for
a service as one line of JSON, and runs until its standard input ends, so that it never outlives the
process that started it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contract import read
from . import brokers, results, servers

PROJECT = Path.cwd()
"""Root of the project, the current directory of `make` and of tests."""
CONTRACT = Path(os.environ.get("CONTRACT_FILE") or PROJECT / "contract.json")
OWN_VARIABLES = PROJECT / "development.env"
"""The owner's environment variables for development, in a file that may be missing."""

ENVIRONMENT = "development"

RUNNING = "AWS_EMULATOR_URL"
"""Environment variable with the URL of a running emulator, such as LocalStack, which is used instead of moto."""

FAST_VALUES: dict[str, float] = {
    "wait_time_seconds": 1,
    "dead_letter_retention_seconds": 1_209_600,
    "soft_limit_seconds": 240,
    "hard_limit_seconds": 300,
    "max_countdown_seconds": 300,
    # On RabbitMQ, it must cover a task of each of the five queues that a worker can serve.
    "visibility_timeout_seconds": 1_560,
    "heartbeat_seconds": 0,
    "retry_backoff_seconds": 0.1,
    "max_receive_count": 5,
    "retention_seconds": 345_600,
    "concurrency": 4,
    "seconds_per_task": 5,
}
"""Values for tests and demonstrations: short waiting and backoff, long limits."""


def write_fast_contract(path: Path) -> Path:
    """Write the project's contract with values for tests and demonstrations.

    The emulator and the service read it if `CONTRACT_FILE` is its path.

    Raises:
        ContractError: the project's contract breaks rules.
    """
    read(PROJECT / "contract.json")
    contract = json.loads((PROJECT / "contract.json").read_text(encoding="utf-8"))
    for section in sections(contract):
        section.update({name: value for name, value in FAST_VALUES.items() if name in section})
    path.write_text(json.dumps(contract), encoding="utf-8")
    return path


def sections(contract: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parts of a contract, as decoded from JSON, that have values."""
    yield contract
    for name in ("queue", "worker"):
        yield contract[f"{name}_defaults"]
        yield from contract[f"{name}s"]


def import_path() -> str:
    """Return a PYTHONPATH with which other processes import the same modules as this one."""
    return os.pathsep.join(filter(None, sys.path))


class EmulatorError(RuntimeError):
    """The emulator did not start, or has ended."""


@dataclass(frozen=True)
class Emulator:
    """A running emulator."""

    variables: dict[str, str]
    """Environment variables for a service."""
    process: subprocess.Popen[str]

    def ended(self) -> str:
        """Return what has ended, the emulator or one of its servers; empty while both run."""
        if (status := self.process.poll()) is None:
            return ""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip() or f"the emulator ended with status {status}"


@contextlib.contextmanager
def running(visibility_timeout_seconds: int | None = None, contract: Path = CONTRACT) -> Iterator[dict[str, str]]:
    """Run an emulator and yield the environment variables for a service; see `started`."""
    with started(visibility_timeout_seconds, contract) as emulator:
        yield emulator.variables


@contextlib.contextmanager
def started(visibility_timeout_seconds: int | None = None, contract: Path = CONTRACT) -> Iterator[Emulator]:
    """Run an emulator.

    Args:
        visibility_timeout_seconds: visibility timeout of every queue instead of the contract's, for
            tests that wait for a redelivery.
        contract: path of the contract.

    Raises:
        ContractError: the contract breaks rules.
        EmulatorError: the emulator did not start.
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
        # Not stopped by Ctrl-C in the terminal: stopping workers still need the emulator.
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise EmulatorError(f"the emulator ended with status {process.wait()}; see its output above")
            yield Emulator(json.loads(line), process)
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def own_variables() -> dict[str, str]:
    """Return the environment variables that the owner has set for development, in `development.env`."""
    from dotenv import dotenv_values

    found = dotenv_values(OWN_VARIABLES, interpolate=False) if OWN_VARIABLES.exists() else {}
    return {name: value or "" for name, value in found.items()}


def environment_of(contract: Any, url: str) -> dict[str, str]:
    """Return the environment variables for a service, except those of its broker and result backend."""
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
    """Run moto in this process, by default on a free port of localhost, and yield its URL."""
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
    """Run the emulator until standard input ends, or a server that it has started."""
    parser = argparse.ArgumentParser(prog="python -m celery_aws.dev.emulator", description=__doc__)
    parser.add_argument("--visibility-timeout-seconds", type=int)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; default: a free one")
    arguments = parser.parse_args()
    contract = read(CONTRACT)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        running = os.environ.get(RUNNING)
        url = running or stack.enter_context(moto(arguments.host, arguments.port))
        environment = environment_of(contract, url)
        if running:  # An account of its own: LocalStack takes its number for the key's id.
            environment["AWS_ACCESS_KEY_ID"] = f"{10**11 + secrets.randbelow(9 * 10**11)}"
        os.environ.update(environment)
        environment.update(results.create(contract, stack))
        # Last, because the health check in compose.yaml waits for the last queue.
        broker, visibility_timeout = brokers.chosen(contract), arguments.visibility_timeout_seconds
        environment.update(broker.create(contract, url, ENVIRONMENT, visibility_timeout, stack))
        print(json.dumps(environment), flush=True)
        if ended := servers.wait():
            print(ended, flush=True)
            sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, TimeoutError) as error:  # A server is not installed, or did not start.
        sys.exit(str(error))
