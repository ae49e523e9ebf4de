"""The tests of the chassis's Terraform modules. Projects do not have them, so they are copied into one to run there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

FILES = Path(__file__).parent / "library" / "terraform"
QUESTIONS = json.loads((FILES.parents[2] / "cookiecutter.json").read_text(encoding="utf-8"))
CHOICES = {name: options for name, options in QUESTIONS.items() if isinstance(options, list)}


def words(options: list[str]) -> set[str]:
    """Return the words of options that names of files contain: `sqs-fifo` is `sqs` and `fifo`."""
    return {word for option in options for word in option.split("-")}


def add_module_tests(project: Path) -> None:
    """Copy the tests of a project's modules to chassis/terraform/<module>/tests/, except those of unused options."""
    contract = json.loads((project / "contract.json").read_text(encoding="utf-8"))
    choices = [name for name in CHOICES if name in contract]
    offered = words([option for name in choices for option in CHOICES[name]])
    unused = offered - words([contract[name] for name in choices])
    for path in sorted([*FILES.glob("*/*.tftest.hcl"), *FILES.glob("*/*.json")]):
        if unused.isdisjoint(re.split(r"[._]", path.name)):
            tests = project / "chassis" / "terraform" / path.parent.name / "tests"
            tests.mkdir(exist_ok=True)
            shutil.copy(path, tests)
