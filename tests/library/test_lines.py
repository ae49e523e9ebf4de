"""The lines that `make dev` prints of what its processes print."""

from __future__ import annotations

import io
import json
from datetime import datetime

import pytest
from rich.console import Console

from library.support import CONTRACT, contract, module

lines = module("dev.lines")
AT = datetime(2026, 12, 1, 6, 4, 3)
TASK = f"{CONTRACT['package']}.tasks.high.shout"


def formatted(*printed, name="high"):
    """Return what is shown of some lines of a process."""
    formatter = lines.Lines(["high", "(producer)"], contract.short_name)
    return [formatter.format(name, line, AT) for line in printed]


def logged(message, level="INFO", **fields):
    """Return a log line of a worker."""
    return json.dumps({"level": level, "logger": "x", "message": message, **fields})


def test_lines_when_a_worker_logs_then_are_aligned():
    plain, ended = formatted(
        logged("high@host ready."),
        logged("succeeded in 0.001 s", task=TASK, task_id="d3c10b6f-a8f0-4b62-9d0c-8a4d5b1e7f60", outcome="succeeded"),
    )
    words = ended.plain.split()
    assert words == ["06:04:03", "high", "succeeded", "high.shout", "succeeded", "in", "0.001", "s", "d3c10b6f"]
    assert plain.plain.split() == ["06:04:03", "high", "INFO", "high@host", "ready."]
    assert ended.plain.index("succeeded") == plain.plain.index("INFO")
    assert ended.plain.index("high.shout") == plain.plain.index("high@host")
    (other,) = formatted(logged("ready"), name="(producer)")
    assert other.plain.index("INFO") == plain.plain.index("INFO")


def test_lines_when_a_schedule_sends_a_task_then_its_runs_differ():
    ids = [f"ticker-2027-01-31T06:3{minute}:00Z" for minute in range(2)]
    shown = formatted(*(logged("ok", task=TASK, task_id=each, outcome="succeeded") for each in ids))
    assert [line.plain.split()[-1] for line in shown] == ids


def test_lines_when_a_task_fails_then_its_traceback_is_below():
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: \x1b[31mbad\x07'
    (shown,) = formatted(logged("failed\nfor good", "ERROR", task=TASK, outcome="dead_lettered", exception=trace))
    first, *below = shown.plain.splitlines()
    assert first.endswith("failed")
    assert [line.strip() for line in below] == [
        "for good",
        "Traceback (most recent call last):",
        'File "a.py", line 1',
        "ValueError: bad\N{MIDDLE DOT}",
    ]
    assert below[2].index("File") == below[1].index("Traceback") + 2


@pytest.mark.parametrize(
    "line",
    ["", "text", "{", '{"a": 1}', "{}", '{"level": "INFO"', "[1]", "{" * 5, '{"a":' * 100_000, "  [bold]indented"],
)
def test_lines_when_they_are_none_of_a_worker_then_are_shown_as_they_are(line):
    (shown,) = formatted(line)
    assert shown.plain == f"06:04:03  high        {line}"


@pytest.mark.parametrize("field", ["message", "level", "task", "task_id", "outcome", "exception", None])
def test_lines_when_they_have_control_characters_then_show_none(field):
    evil = "a\x1b[2J\x1b]0;title\x07\x9b31m\r\x08\u202e\tb"
    (shown,) = formatted(evil if field is None else json.dumps({"level": "INFO", "message": "m", field: evil}))
    assert all(part.isprintable() for part in shown.plain.splitlines())


def test_lines_when_colour_is_not_wanted_then_have_no_escape_sequences(monkeypatch):
    ended = logged("ok", task=TASK, task_id="1", outcome="succeeded")

    def printed(**options):
        file = io.StringIO()
        Console(file=file, highlight=False, **options).print(*formatted(ended), soft_wrap=True)
        return file.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m" in printed(force_terminal=True)
    assert "\x1b" not in printed(force_terminal=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in printed(force_terminal=True)
