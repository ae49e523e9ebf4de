"""`make dev`: an emulator, the workers, the beat, a producer, the Procfile's processes and the console.

Ctrl-C stops all.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from honcho.manager import Manager

from ..contract import ContractError, read
from . import console, emulator, procfile

ENVIRONMENT_FILE = emulator.PROJECT / ".env.development"
PROCFILE = emulator.PROJECT / "Procfile"
PROGRAMS = str(Path(sys.executable).parent)
"""Folder of the programs of the virtual environment."""


@contextlib.contextmanager
def environment_file(variables: Mapping[str, str]) -> Iterator[None]:
    """Provide a file that a shell can source to use the emulator; it is deleted at the end."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines.append(f'export PATH={shlex.quote(PROGRAMS)}:"$PATH"')
    ENVIRONMENT_FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        yield
    finally:
        ENVIRONMENT_FILE.unlink(missing_ok=True)


def processes(contract: Any) -> dict[str, str]:
    """Return the shell commands of the service's own processes by name."""
    python = shlex.quote(sys.executable)
    # `exec`, so that the worker receives the signal, and not a shell.
    commands = {w.name: f"exec {python} -m {contract.package} worker {w.name}" for w in contract.workers}
    if contract.schedules:
        commands["(beat)"] = f"exec {python} -m {contract.package} beat"
    commands["(producer)"] = f"exec {python} -m celery_aws.dev.producer"
    return commands


def stop(manager: Any, groups: Collection[str], pid: int) -> None:
    """Send SIGTERM to a process; to its process group if its name is in `groups`.

    honcho would signal all groups, and so kill running tasks that a stopping worker waits for. A command of the
    Procfile may be a shell, which does not hand the signal on.
    """
    is_group = any(manager._processes[name].get("pid") == pid for name in groups)
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if is_group else os.kill)(pid, signal.SIGTERM)


def main() -> int:
    """Run until Ctrl-C; return the exit status."""
    contract = read(emulator.CONTRACT)
    ours = processes(contract)
    owners = procfile.read(PROCFILE, taken=ours)
    with contextlib.ExitStack() as stack:
        variables = stack.enter_context(emulator.running())
        log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "workers.log"
        variables[console.LOG_FILE] = str(log)
        stack.enter_context(environment_file(variables))
        print(f"The emulator listens at {variables['AWS_ENDPOINT_URL']}. Ctrl-C stops everything.")
        print(f"To use the service's command in another terminal, run `. ./{ENVIRONMENT_FILE.name}` there.", flush=True)
        path = os.pathsep.join(filter(None, (PROGRAMS, os.environ.get("PATH"))))
        environment = {**os.environ, **variables, "PATH": path, "PYTHONUNBUFFERED": "1"}
        if address := stack.enter_context(console.running(contract.package, environment)):
            print(f"Queues, failed tasks and logs: {address}", flush=True)
        manager = Manager(stack.enter_context(console.printer(log)))
        manager._procmgr.terminate = functools.partial(stop, manager, owners)
        for name, command in {**ours, **owners}.items():
            manager.add_process(name, command, env=environment, cwd=emulator.PROJECT)
        manager.loop()
    was_interrupted = manager.returncode in (130, 143)
    return 0 if was_interrupted else int(manager.returncode or 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
    except (emulator.EmulatorError, procfile.ProcfileError, ContractError, FileNotFoundError) as error:
        sys.exit(str(error))
