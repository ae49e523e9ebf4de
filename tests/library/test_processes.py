"""How `make dev` starts and stops its processes."""

from __future__ import annotations

import os
import shlex
import sys

import pytest

from library.support import eventually, module

processes = module("dev.processes")


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Start shell commands by name; return them, and the lines that they print."""
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.5)
    every = []

    def start(groups=(), **commands):
        lines = []
        running = processes.Processes(commands, groups, os.environ, tmp_path, lambda *line: lines.append(line))
        every.append(running)
        running.start()
        return running, lines

    yield start
    for running in every:
        running.stop()


def shown(running, lines, *expected):
    """Wait until some lines are shown."""
    return eventually(lambda: running.pump(0.1) or set(expected) <= set(lines), 10)


def test_processes_when_they_print_then_are_shown_by_name(started):
    running, lines = started(a="echo 1; echo 2 >&2; sleep 60", b=r"printf '\377\n'; sleep 60")
    assert shown(running, lines, ("a", "1"), ("a", "2"), ("b", "\N{REPLACEMENT CHARACTER}")), lines


def test_processes_when_one_ends_then_the_others_run_and_it_starts_again(started):
    running, lines = started(a="echo begins; sleep 60", b="echo begins; exit 3")
    assert shown(running, lines, ("a", "begins"))
    assert eventually(lambda: running.ended() == {"b": 3}, 10)
    assert running.ended() == {}
    running.start()
    running.pump(0.5)
    assert lines.count(("a", "begins")) == 1
    assert lines.count(("b", "begins")) == 2


# In Python: a shell cannot trap SIGQUIT where its parent ignores it, as in a command that ends with `&`.
FIRM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *caught: print("no"))
signal.signal(signal.SIGQUIT, lambda *caught: sys.exit(print("quits")))
print("on")
time.sleep(60)
"""


def test_processes_when_stopped_then_end_by_the_mildest_signal(started, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_SECONDS", 3)
    running, lines = started(
        mild="trap 'echo bye; exit' TERM; echo on; while :; do sleep 0.1; done",
        firm=shlex.join(["exec", sys.executable, "-uc", FIRM]),
        stubborn="trap '' TERM QUIT; echo on; while :; do sleep 0.1; done",
        other="sleep 60",
    )
    assert shown(running, lines, *((name, "on") for name in ("mild", "firm", "stubborn")))
    running.stop(["mild", "firm", "stubborn"])
    assert {("mild", "bye"), ("firm", "quits")} <= set(lines)
    assert running.ended() == {}  # Those that were stopped are not reported, and `other` runs.


def test_processes_when_one_is_a_group_then_its_children_are_signalled(started):
    child = "sh -c 'trap \"echo child; exit\" TERM; echo on; for _ in $(seq 200); do sleep 0.1; done'; true"
    running, lines = started(groups=["a"], a=child, b=child)
    assert shown(running, lines, ("a", "on"), ("b", "on"))
    running.stop()
    assert ("a", "child") in lines
    assert ("b", "child") not in lines
