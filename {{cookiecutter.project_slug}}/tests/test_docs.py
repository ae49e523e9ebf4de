"""What docs/ and `--help` say of the on-call commands; tests/test_operations.py runs what they show."""

from __future__ import annotations

import re
import shlex

from tests.commands import OPERATIONS, command_of, documented
from tests.support import CONTRACT, module

ops = module("ops")


def test_every_command_has_an_example():
    commands = {
        f"{name} {sub}" if sub else name for name in ops.names() for sub in getattr(ops.load(name), "commands", [""])
    }
    assert {command_of(line.split()[1:]) for line in documented()} == commands
    assert all(f"{CONTRACT['service']} {name}" in OPERATIONS for name in commands)


def test_help_of_every_command_has_an_example_that_parses():
    for name in ops.names():
        command = ops.load(name)
        for sub in getattr(command, "commands", {"": command}).values():
            assert sub.examples, name
            needed = ["--environment", "test"] if any(option.name == "environment" for option in sub.params) else []
            for example in sub.examples:
                words = shlex.split(example)
                assert words[0] == name
                sub.make_context(name, [*words[1 if sub is command else 2 :], *needed], resilient_parsing=True)


def test_table_of_checks_is_that_of_the_doctor():
    rows = dict(re.findall(r"^\| (D[0-9]+) \| (.*) \|$", OPERATIONS, re.MULTILINE))
    assert rows == dict(module("ops.doctor").CHECKS)
