"""The parts of the hooks by themselves."""

from __future__ import annotations

import json
import runpy

import pytest
import yaml
from conftest import PARSERS, TEMPLATE, tree

answers = runpy.run_path(str(TEMPLATE / "hooks" / "answers.py"))
post = runpy.run_path(str(TEMPLATE / "hooks" / "post_gen_project.py"))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("240", "240"),
        (" 7 ", "7"),
        ("007", "7"),
        ("-1", "-1"),
        ("1e3", '"1e3"'),
        ("1.5", '"1.5"'),
        ("٣", '"٣"'),
        ("", '""'),
        ("9" * 16, f'"{"9" * 16}"'),
        ('7, "x": 1', '"7, \\"x\\": 1"'),
    ],
)
def test_number_writes_digits_alone_as_a_number(text, written):
    assert answers["number"](text) == written
    json.loads(answers["number"](text))


@pytest.mark.parametrize(
    "text", ['a "quoted" \\ backslash', "Café 🍰", "${x} #{y} %(z)s", "'''", "yes", "null", "- x: y"]
)
def test_quoted_text_reads_back_the_same_everywhere(text):
    written = answers["quoted"](text)
    assert json.loads(written) == yaml.safe_load(written) == PARSERS[".toml"](f"x = {written}")["x"] == text


def test_names_are_split_at_commas():
    assert answers["names"](" high,default ,, low ") == ["high", "default", "low"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(90, "90 seconds"), (3_300, "55 minutes"), (9_000, "2.5 hours"), (432_000, "5 days")]
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert answers["_duration"](seconds) == said


def test_naming_rule(tmp_path):
    for name in (
        "src/results.s3.py",
        "src/results.redis.py",
        "src/broker.sqs.py",
        "terraform/tests/compute.ecs.tftest.hcl",
        "requirements.txt",
        "requirements-dev.redis.txt",
        ".env.example",
        ".github/deploy.ec2.yml",
        "mine/results.redis.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    post["keep_chosen"](tmp_path, {"s3", "ecs", "sqs"}, {"s3", "redis", "ecs", "ec2", "sqs"})
    assert tree(tmp_path) == {
        ".env.example": b".env.example",
        "mine/results.redis.py": b"mine/results.redis.py",
        "requirements.txt": b"requirements.txt",
        "src/broker.py": b"src/broker.sqs.py",
        "src/results.py": b"src/results.s3.py",
        "terraform/tests/compute.tftest.hcl": b"terraform/tests/compute.ecs.tftest.hcl",
    }


def test_task_module_when_it_exists_then_is_kept(tmp_path):
    (tmp_path / "queue.stub.py").write_text("stub")
    (tmp_path / "low.py").write_text("mine")
    post["make_task_modules"](tmp_path, ["high", "queue_stub", "low"])
    assert tree(tmp_path) == {"high.py": b"stub", "low.py": b"mine", "queue_stub.py": b"stub"}
