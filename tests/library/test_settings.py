"""`.env.example` shows the environment variables as they are: all of them, no others, and values that fit."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

from pydantic_settings import BaseSettings

from library.support import PROJECT, contract, fields, read_variables

EXAMPLE = PROJECT / ".env.example"
SHOWN = re.findall(r"^# (.+)\n(#?)([A-Z_]+)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
OTHERS = {"AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "LIVENESS_DIRECTORY"}
"""Read by boto3, and by what asks whether a worker is alive."""
ALL = fields(replace(contract, **dict.fromkeys(("long_delays", "remote_control"), contract.broker.startswith("sqs"))))
"""Also those that only a contract with `long_delays` or `remote_control` needs, and the default one does not."""


def read(monkeypatch, values):
    """Read settings from given variables alone."""
    for name in fields():
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return read_variables()


def test_every_variable_is_shown_and_no_other():
    names = [name for _, _, name, _ in SHOWN]
    assert sorted(names) == sorted({name.upper() for name in ALL} | OTHERS)
    assert len(re.findall(r"^#?[A-Z_]+=", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)) == len(names)


def test_every_variable_is_described_as_in_the_settings():
    described = {name: text for text, _, name, _ in SHOWN if name not in OTHERS}
    assert described == {name.upper(): field.description for name, field in ALL.items()}


def test_what_must_be_set_is_and_what_is_commented_out_is_the_default():
    for _, comment, name, value in SHOWN:
        field = ALL.get(name.lower())
        if field:
            assert (field.is_required() and name.lower() in fields()) == (comment == ""), name
            assert field.is_required() or field.default == value


def test_values_fit(monkeypatch):
    held, of_options = read(monkeypatch, {name: value for _, comment, name, value in SHOWN if not comment})
    assert all(isinstance(each, BaseSettings) for each in (held, *of_options))
    assert held.environment == "staging"


def test_a_shell_reads_the_same_values():
    command = f"set -a; . '{EXAMPLE}'; env"
    lines = subprocess.run(["env", "-i", "sh", "-c", command], capture_output=True, text=True, check=True).stdout
    seen = dict(line.split("=", 1) for line in lines.splitlines())
    shown = {name: value for _, comment, name, value in SHOWN if not comment}
    assert {name: seen.get(name) for name in shown} == shown
