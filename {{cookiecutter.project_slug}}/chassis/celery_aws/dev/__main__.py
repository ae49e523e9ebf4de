"""`make dev`: emulator, one worker per queue and a sender in one terminal; Ctrl-C stops them all."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from honcho.manager import Manager

from ..contract import ContractError, read
from . import emulator

REACH = emulator.PROJECT / ".env.development"


@contextlib.contextmanager
def other_terminals_reach(variables: Mapping[str, str]) -> Iterator[None]:
    """Keep a file, as long as this runs, that leads a shell to the emulator and to this environment's commands."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    REACH.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        yield
    finally:
        REACH.unlink(missing_ok=True)


def main() -> int:
    """Run until Ctrl-C; return the exit status."""
    contract = read(emulator.CONTRACT)
    python = shlex.quote(sys.executable)
    with contextlib.ExitStack() as stack:
        variables = stack.enter_context(emulator.running())
        stack.enter_context(other_terminals_reach(variables))
        print(f"The emulator answers at {variables['AWS_ENDPOINT_URL']}. Ctrl-C stops everything.")
        print(f"In another terminal, `. ./{REACH.name}` leads the service's command there.", flush=True)
        environment = {**os.environ, **variables, "PYTHONUNBUFFERED": "1"}
        manager = Manager()
        # honcho would signal whole process groups, and so kill the tasks that a worker told to stop
        # still waits for.
        manager._procmgr.terminate = lambda pid: os.kill(pid, signal.SIGTERM)
        for queue in contract.queues:
            # `exec`, so that the signal to stop reaches the worker and not a shell around it.
            command = f"exec {python} -m {contract.package} worker {queue.name}"
            manager.add_process(queue.name, command, env=environment, cwd=emulator.PROJECT)
        command = f"exec {python} -m celery_aws.dev.sender"
        manager.add_process("(sender)", command, env=environment, cwd=emulator.PROJECT)
        manager.loop()
    stopped_by_hand = manager.returncode in (130, 143)
    return 0 if stopped_by_hand else int(manager.returncode or 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
    except (emulator.EmulatorError, ContractError, FileNotFoundError) as error:
        sys.exit(str(error))
