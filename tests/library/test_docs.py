"""What docs/ and `--help` say of the on-call commands; tests/test_operations.py runs what they show."""

from __future__ import annotations

import importlib
import json
import re
import shlex

import click
from click.testing import CliRunner

from library.commands import OPERATIONS, command_of, documented
from library.support import BROKER, CONTRACT, module

COMMANDS = {
    name: importlib.import_module(found).command
    for name in module("cli").OPERATIONS
    if (found := module("cli").module_of(name))
}
"""The on-call commands."""


def test_every_command_has_an_example():
    commands = {
        f"{name} {sub}" if sub else name
        for name, command in COMMANDS.items()
        for sub in getattr(command, "commands", [""])
    }
    assert {command_of(line.split()[1:]) for line in documented()} == commands
    assert all(f"{CONTRACT['service']} {name}" in OPERATIONS for name in commands)


def test_help_of_every_command_has_an_example_that_parses():
    for name, command in {**COMMANDS, **module("cli").main.commands}.items():
        for sub in getattr(command, "commands", {"": command}).values():
            assert sub.examples, name
            needed = ["--environment", "test"] if any(option.name == "environment" for option in sub.params) else []
            for example in sub.examples:
                words = shlex.split(example)
                assert words[0] == name
                sub.make_context(name, [*words[1 if sub is command else 2 :], *needed], resilient_parsing=True)


def test_examples_in_help_name_a_queue_of_the_contract(tmp_path, monkeypatch):
    main, file = module("cli").main, tmp_path / "contract.json"
    file.write_text(json.dumps({**CONTRACT, "queues": [{"name": "mail-room"}], "workers": [], "routes": {}}))
    monkeypatch.setenv("CONTRACT_FILE", str(file))
    said = CliRunner().invoke(main, ["send", "--help"]).output + CliRunner().invoke(main, ["worker", "--help"]).output
    assert " mail_room.send_invoice " in said
    assert " worker mail-room" in said
    file.write_text("{}")
    assert "worker <worker>" in CliRunner().invoke(main, ["worker", "--help"]).output


def test_help_when_it_lists_commands_then_cuts_off_no_description():
    for group in (module("cli").main, *COMMANDS.values()):
        if isinstance(group, click.Group):
            with click.Context(group, info_name="service", terminal_width=80) as context:
                assert "..." not in group.get_help(context).partition("Commands:")[2], group.name


def test_completion_when_set_up_as_help_says_then_completes():
    main, name = module("cli").main, CONTRACT["service"]
    said = CliRunner().invoke(main, ["--help"], prog_name=name).output
    ((variable, shell),) = re.findall(rf'eval "\$\((\w+)=(\w+)_source {name}\)"', said)
    typed = {variable: f"{shell}_complete", "COMP_WORDS": f"{name} doct", "COMP_CWORD": "1"}
    assert CliRunner().invoke(main, [], prog_name=name, env=typed).output == "plain,doctor\n"


def test_table_of_checks_is_that_of_the_doctor():
    rows = dict(re.findall(r"^\| (D[0-9]+) \| (.*) \|$", OPERATIONS, re.MULTILINE))
    assert rows == dict(module(f"doctor.{BROKER}").CHECKS)
