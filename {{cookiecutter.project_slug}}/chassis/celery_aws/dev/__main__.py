"""`make dev`: an emulator, the workers, the beat, a producer, the Procfile's processes and the console.

The service's own processes restart when one of its files changes. Ctrl-C stops all.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.text import Text

from .. import strays, terminal
from ..contract import Contract, ContractError, read
from ..health import liveness_file
from . import console, emulator, procfile
from .lines import Lines
from .processes import Processes

ENVIRONMENT_FILE = emulator.PROJECT / ".env.development"
PROCFILE = emulator.PROJECT / "Procfile"
SOURCES = emulator.PROJECT / "src"
PROGRAMS = str(Path(sys.executable).parent)
"""Folder of the programs of the virtual environment."""
RESTARTING_ALL = (emulator.CONTRACT, emulator.OWN_VARIABLES)
"""Files whose changes restart everything, also the emulator."""
POLL_SECONDS = 0.5
SUPERVISOR = "(dev)"
"""Name of this process in the output."""
WARNINGS = "ignore:You're running the worker with superuser privileges"
"""Celery's warning for root, the usual user in a container for development."""


class Output:
    """Standard output, for as long as somebody reads it."""

    def __init__(self) -> None:
        self._console = terminal.console()
        self.is_read = True

    def write(self, text: Text | str) -> None:
        """Write lines, unless nobody reads them any more."""
        if self.is_read:
            try:
                self._console.print(text, soft_wrap=True, markup=False)
            except (OSError, SystemExit):  # rich exits if a pipe has no reader.
                self.is_read = False


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


def service_commands(contract: Contract) -> dict[str, str]:
    """Return the shell commands of the service's own processes by name."""
    python = shlex.quote(sys.executable)
    # `exec`, so that the worker receives the signal, and not a shell.
    commands = {w.name: f"exec {python} -m {contract.package} worker {w.name}" for w in contract.workers}
    if contract.schedules:
        commands["(beat)"] = f"exec {python} -m {contract.package} beat"
    commands["(producer)"] = f"exec {python} -m celery_aws.dev.producer"
    return commands


def process_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return all environment variables of processes, given those of the emulator."""
    return {
        **os.environ,
        **variables,
        "PATH": os.pathsep.join(filter(None, (PROGRAMS, os.environ.get("PATH")))),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": ",".join(filter(None, (WARNINGS, os.environ.get("PYTHONWARNINGS")))),
    }


def guide(contract: Contract, console_address: str) -> str:
    """Return what to do next, once all workers are ready."""
    lines = {
        "Console": console_address or "did not start; see above",
        "Send a task": f". ./{ENVIRONMENT_FILE.name}; {contract.service} send <module>.<function> <arguments>"
        "    # in another terminal",
        "Add a task": f"src/{contract.package}/tasks/{contract.queues[0].module}.py; workers restart when you save it",
        "Stop": "Ctrl-C",
    }
    return "\nAll workers are ready.\n" + "".join(f"  {what:<13}{how}\n" for what, how in lines.items())


def modified() -> dict[Path, int]:
    """Return the modification times of the files that processes depend on."""
    times = {}
    for path in (*RESTARTING_ALL, *SOURCES.rglob("*.py")):
        with contextlib.suppress(FileNotFoundError):
            times[path] = path.stat().st_mtime_ns
    return times


def problems(files: Iterable[Path]) -> Iterator[str]:
    """Yield why the contract, or one of some Python files, cannot be used."""
    try:
        read(emulator.CONTRACT)
    except (ContractError, OSError) as error:
        yield from str(error).splitlines()
    for path in files:
        if path.suffix == ".py":
            try:
                compile(path.read_bytes(), str(path), "exec")
            except SyntaxError as error:
                yield f"{path.relative_to(emulator.PROJECT)}, line {error.lineno}: {error.msg}"
            except (OSError, ValueError) as error:  # It was deleted meanwhile, or is binary.
                yield f"{path.relative_to(emulator.PROJECT)}: {error}"


def warn_of_strays(contract: Contract, say: Callable[[str], None]) -> None:
    """Say which modules of tasks no worker loads."""
    for line in strays.stray_modules(contract, SOURCES / contract.package).values():
        say(line)


def report_ended(processes: Processes, emulated: emulator.Emulator, say: Callable[[str], None]) -> None:
    """Say which processes have ended.

    Raises:
        EmulatorError: the emulator, or one of its servers, has ended.
    """
    for name, status in processes.ended().items():
        say(f"{name} ended with status {status}; it starts again when a file changes")
    if ended := emulated.ended():
        say(f"{ended}; stopping all, because the queues and their messages are lost")
        raise emulator.EmulatorError(f"{ended}; start `make dev` again")


def supervise(
    processes: Processes, contract: Contract, emulated: emulator.Emulator, next_steps: str, output: Output
) -> Path | None:
    """Restart the service's processes when files change, until nobody reads the output.

    Returns:
        A file of `RESTARTING_ALL` that has changed.

    Raises:
        EmulatorError: the emulator, or one of its servers, has ended.
    """
    say = partial(processes.show, SUPERVISOR)
    ours = service_commands(contract)
    running = seen = modified()
    warn_of_strays(contract, say)
    while output.is_read:
        processes.pump(POLL_SECONDS)
        report_ended(processes, emulated, say)
        if next_steps and all(liveness_file(contract, worker.name).exists() for worker in contract.workers):
            output.write(next_steps)
            next_steps = ""
        now = modified()
        if now == seen:
            continue
        seen = now
        if found := list(problems(now)):
            for line in (*found, "nothing restarts until this is fixed"):
                say(line)
            continue
        changed = sorted(path for path in {*running, *now} if running.get(path) != now.get(path))
        for path in RESTARTING_ALL:
            if path in changed:
                processes.stop()
                return path
        running = now
        warn_of_strays(contract, say)
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        say(f"{changed[0].relative_to(emulator.PROJECT)}{more} changed; restarting {', '.join(ours)}")
        processes.stop(ours)
        processes.start()
    return None


def run(output: Output) -> Path | None:
    """Run everything; return the file that has changed if it must run again.

    Raises:
        ContractError: the contract breaks rules.
        EmulatorError: the emulator did not start, or has ended.
        ProcfileError: a line of the Procfile cannot be run.
    """
    contract = read(emulator.CONTRACT)
    ours = service_commands(contract)
    owners = procfile.read(PROCFILE, taken=ours)
    with contextlib.ExitStack() as stack:
        output.write("Starting an emulator of AWS, and the workers. Ctrl-C stops everything.")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["LIVENESS_DIRECTORY"] = str(folder)
        log = folder / "workers.log"
        emulated = stack.enter_context(emulator.started())
        # A variable of the shell comes before that of the file, and the emulator's before both.
        variables = {name: value for name, value in emulator.own_variables().items() if name not in os.environ}
        variables |= emulated.variables | {console.LOG_FILE: str(log), "LIVENESS_DIRECTORY": str(folder)}
        stack.enter_context(environment_file(variables))
        environment = process_environment(variables)
        if address := stack.enter_context(console.running(contract.package, environment)):
            output.write(f"Queues, failed tasks and logs: {address}")
        lines = Lines([*ours, *owners, SUPERVISOR], contract.short_name)
        write_log = stack.enter_context(console.log_file(log))

        def show(name: str, line: str) -> None:
            write_log(line)
            if line.strip():  # Celery surrounds some with empty ones.
                output.write(lines.format(name, line, datetime.now()))

        processes = Processes({**ours, **owners}, owners, environment, emulator.PROJECT, show)
        stack.callback(processes.stop)
        processes.start()
        return supervise(processes, contract, emulated, guide(contract, address), output)


def interrupt(number: int, frame: Any) -> None:
    """Handle the first signal; further ones do not interrupt what it stops.

    Raises:
        KeyboardInterrupt: always.
    """
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run until Ctrl-C, and return 0; or until nobody reads the output, and return 1."""
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # As with nohup.
        signal.signal(signal.SIGHUP, interrupt)
    output = Output()
    with contextlib.suppress(KeyboardInterrupt):
        while changed := run(output):
            output.write(f"\n{changed.name} changed; starting again, without the messages so far.")
    return 0 if output.is_read else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (emulator.EmulatorError, procfile.ProcfileError, ContractError, FileNotFoundError) as error:
        sys.exit(str(error))
