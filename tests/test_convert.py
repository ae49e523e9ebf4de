"""The converter of contracts: version 1 becomes version 2, and every number stays what it was."""

from __future__ import annotations

import copy
import importlib
import json
import os
import random
import subprocess
import sys

import pytest
from conftest import COMBINATIONS, PROJECT, RULES, label
from test_rules import CONTRACT, changed, sharing

# Beside the rules of hooks/answers.py, whose package has a name of its own each time.
convert = importlib.import_module(f"{RULES.__name__}.convert")

OF_WORKER = {"concurrency": "concurrency", "workers_min": "min", "workers_max": "max"}


def version_1(contract):
    """Return the contract as version 1 had it: a queue had all numbers, and those of its worker."""
    whole = RULES.effective(contract)
    workers = {name: worker for worker in whole["workers"] for name in worker["queues"]}
    first = {}
    for name, value in contract.items():
        if name == "queues":
            first[name] = [
                {
                    "name": "",
                    **{field: value for field, value in queue.items() if field != "fifo"},
                    **{old: workers[queue["name"]][new] for old, new in OF_WORKER.items()},
                }
                for queue in whole["queues"]
            ]
        elif name not in ("$schema", "queue_defaults", "worker_defaults", "workers"):
            first[name] = value
    return first


def numbers_of(second):
    """Return the queues that a contract of version 2 has in effect, as those of version 1."""
    return version_1(second)["queues"]


@pytest.mark.parametrize("answers", COMBINATIONS[:: max(1, len(COMBINATIONS) // 12)], ids=label)
def test_contract_when_it_is_that_of_a_new_project_then_so_is_its_text(bake, answers):
    baked = (bake(**answers) / "contract.json").read_text(encoding="utf-8")
    converted = convert.convert(version_1(json.loads(baked)))
    assert convert.text(converted) == baked


@pytest.mark.parametrize("seed", range(40))
def test_numbers_when_queues_differ_then_stay_what_they_were(seed):
    chance = random.Random(seed)
    option = chance.choice([{"broker": "sqs-fifo"}, {"broker": "rabbitmq"}, {"compute": "ec2"}, {}])
    first = version_1(changed({**sharing(chance.randint(1, 6)), **option, "workers": []}))
    for queue in first["queues"]:
        queue["hard_limit_seconds"], queue["visibility_timeout_seconds"] = chance.choice(
            [(300, 660), (900, 1_260), (1_500, 3_000), (1_500, 1_860)]
        )
        queue["workers_min"], queue["workers_max"] = chance.choice([(1, 10), (1, 3), (5, 5), (20, 30)])
        queue.update(chance.choice([{}, {"seconds_per_task": 5.0}, {"retry_backoff_seconds": 0.5}]))
    before = copy.deepcopy(first)
    second = convert.convert(first)
    assert first == before
    assert RULES.problems(second) == []
    # As text, in which 5 and 5.0 differ.
    assert [sorted(map(repr, queue.items())) for queue in numbers_of(second)] == [
        sorted(map(repr, queue.items())) for queue in first["queues"]
    ]
    assert {name: second[name] for name in first if name != "queues"} == {
        name: first[name] for name in first if name != "queues"
    }
    assert [worker["queues"] for worker in second["workers"]] == [[queue["name"]] for queue in first["queues"]]


def test_defaults_when_queues_differ_then_are_the_most_common_values():
    first = version_1(changed({**sharing(3), "workers": []}))
    first["queues"][1].update(max_receive_count=9, workers_max=2)
    second = convert.convert(first)
    assert second["queue_defaults"] == CONTRACT["queue_defaults"]
    assert second["queues"] == [{"name": "q0"}, {"name": "q1", "max_receive_count": 9}, {"name": "q2"}]
    assert second["worker_defaults"] == CONTRACT["worker_defaults"]
    assert second["workers"][1] == {"name": "q1", "queues": ["q1"], "max": 2}


def test_defaults_when_common_values_do_not_fit_then_are_of_one_queue():
    first = version_1(changed({**sharing(5), "workers": []}))
    limits = [(300, 660), (300, 660), (1_500, 1_860), (1_500, 1_900), (1_500, 2_000)]
    for queue, (hard, visibility) in zip(first["queues"], limits, strict=True):
        queue.update(hard_limit_seconds=hard, visibility_timeout_seconds=visibility)
    second = convert.convert(first)
    assert RULES.problems(second) == []
    defaults = second["queue_defaults"]
    assert (defaults["hard_limit_seconds"], defaults["visibility_timeout_seconds"]) in limits
    assert numbers_of(second) == first["queues"]


def test_conversion_when_the_contract_is_invalid_then_keeps_its_errors():
    first = version_1(changed({**sharing(3), "workers": []}))
    first["colour"] = "red"
    first["queues"][0]["hard_limit_second"] = 3
    del first["queues"][1]["retention_seconds"], first["queues"][1]["workers_min"]
    first["queues"][2]["max_receive_count"] = 0
    found = {(problem.of, problem.field) for problem in RULES.problems(convert.convert(first))}
    assert found == {
        ("", "colour"),
        ("queue q0", "hard_limit_second"),
        ("queue q1", "retention_seconds"),
        ("worker q1", "min"),
        ("queue q2", "max_receive_count"),
    }


def test_queue_when_its_line_would_be_long_then_has_several():
    first = version_1(changed({**sharing(3), "workers": []}))
    first["queues"][1].update(max_receive_count=9, retention_seconds=500_000, acceptable_latency_seconds=120)
    first["queues"][1].update(retry_backoff_seconds=20, seconds_per_task=7, soft_limit_seconds=100)
    text = convert.text(convert.convert(first))
    assert '\n    {\n      "name": "q1",\n' in text
    assert '\n    {"name": "q0"},\n' in text
    assert max(map(len, text.splitlines())) <= 120
    assert json.loads(text) == convert.convert(first)


@pytest.fixture
def command(tmp_path):
    """Run the converter on a file with some text, without what is installed; return how it ended, and the text."""
    path = tmp_path / "contract.json"

    def run(text):
        if text is not None:
            path.write_text(text, encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-c", CALL, str(PROJECT / "chassis"), str(path)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        return ended, path.read_text(encoding="utf-8") if path.exists() else None

    return run


CALL = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("celery_aws.contract.convert", run_name="__main__", alter_sys=True)
"""


def test_command_when_the_file_is_of_version_1_then_replaces_it(command):
    first = version_1(CONTRACT)
    ended, text = command(json.dumps(first))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(text) == CONTRACT
    again, same = command(None)
    assert (again.returncode, same) == (2, text)
    assert "of version 2 already" in again.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "no contract of version 1"),
        ('{"queues": []}', "no contract of version 1"),
        ('{"queues": [{"workers_max": 1}, 5]}', "no contract of version 1"),
        ('<<<<<<< ours\n{"queues": [', "not JSON"),
        ('{"queues": [{"workers_max": 1}], "queues": [{"workers_max": 1}]}', "is there twice"),
        ('{"queues": [{"workers_max": 1}], "service": "\\ud800"}', "half of a surrogate pair"),
        ('{"queues": [{"workers_max": ' + "[" * 60 + "]" * 60 + "}]}", "nested more than"),
        ("[" * 100_000, "nested more than"),
        *((f'{{"queues": [{{"workers_max": {text}}}]}}', "no finite number") for text in ("NaN", "-Infinity", "1e400")),
        (None, "cannot be read"),
    ],
)
def test_command_when_it_is_no_contract_of_version_1_then_leaves_the_file(command, text, says):
    ended, left = command(text)
    assert (ended.returncode, left, "Traceback" in ended.stderr) == (2, text, False), ended.stderr
    assert says in ended.stderr
