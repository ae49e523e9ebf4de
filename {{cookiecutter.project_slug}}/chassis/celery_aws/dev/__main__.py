"""`make dev`: an emulator, a worker per queue and a producer in one terminal; Ctrl-C stops all."""

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

ENVIRONMENT_FILE = emulator.PROJECT / ".env.development"


@contextlib.contextmanager
def environment_file(variables: Mapping[str, str]) -> Iterator[None]:
    """Provide a file that a shell can source to use the emulator; it is deleted at the end."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    ENVIRONMENT_FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        yield
    finally:
        ENVIRONMENT_FILE.unlink(missing_ok=True)


def main() -> int:
    """Run until Ctrl-C; return the exit status."""
    contract = read(emulator.CONTRACT)
    python = shlex.quote(sys.executable)
    with contextlib.ExitStack() as stack:
        variables = stack.enter_context(emulator.running())
        stack.enter_context(environment_file(variables))
        print(f"The emulator listens at {variables['AWS_ENDPOINT_URL']}. Ctrl-C stops everything.")
        print(f"To use the service's command in another terminal, run `. ./{ENVIRONMENT_FILE.name}` there.", flush=True)
        environment = {**os.environ, **variables, "PYTHONUNBUFFERED": "1"}
        manager = Manager()
        # honcho would signal whole process groups, and so kill running tasks that a stopping worker
        # waits for.
        manager._procmgr.terminate = lambda pid: os.kill(pid, signal.SIGTERM)
        for queue in contract.queues:
            # `exec`, so that the worker receives the signal, and not a shell.
            command = f"exec {python} -m {contract.package} worker {queue.name}"
            manager.add_process(queue.name, command, env=environment, cwd=emulator.PROJECT)
        command = f"exec {python} -m celery_aws.dev.producer"
        manager.add_process("(producer)", command, env=environment, cwd=emulator.PROJECT)
        manager.loop()
    was_interrupted = manager.returncode in (130, 143)
    return 0 if was_interrupted else int(manager.returncode or 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
    except (emulator.EmulatorError, ContractError, FileNotFoundError) as error:
        sys.exit(str(error))
