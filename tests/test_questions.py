"""The questions: few, labelled, documented, and in step with the contract."""

from __future__ import annotations

import json
import re

from conftest import CHOICES, QUESTIONS, RULES, TEMPLATE

ASKED = [name for name in QUESTIONS if not name.startswith("_")]
PROMPTS = QUESTIONS["__prompts__"]


def test_at_most_sixteen_are_asked():
    assert len(ASKED) <= 16


def test_each_has_a_prompt_for_people_and_each_choice_a_label():
    assert list(PROMPTS) == ASKED
    for name, options in CHOICES.items():
        assert list(PROMPTS[name]) == ["__prompt__", *options]
        recommended = [option for option in options if "(recommended)" in PROMPTS[name][option]]
        assert recommended == [options[0]]


def test_choices_are_those_of_the_contract():
    assert {name: tuple(options) for name, options in CHOICES.items()} == dict(RULES.CHOICES)


def test_no_two_choices_share_an_option_since_files_are_named_after_options():
    options = [option for options in CHOICES.values() for option in options]
    assert len(set(options)) == len(options)


def test_table_has_each_question_with_its_default():
    text = (TEMPLATE / "docs" / "questions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE)
    asked = [(name, default) for name, default in rows if name in ASKED]
    assert [name for name, _ in asked] == ASKED
    for name, default in asked:
        raw = QUESTIONS[name]
        if isinstance(raw, list):
            assert default == ", ".join(f"`{option}`" for option in raw), name
        elif "{{" not in raw:
            assert default == (f"`{raw}`" if raw else "empty"), name


def test_dependent_defaults_follow_the_answers(bake):
    project = bake(project_name="Tax & Billing", soft_limit_seconds="600", max_countdown_seconds="0")
    contract = json.loads((project / "contract.json").read_text(encoding="utf-8"))
    assert project.name == contract["service"] == "tax-billing"
    assert contract["package"] == "tax_billing"
    assert contract["description"] == "Background jobs of Tax & Billing"
    for queue in RULES.effective(contract)["queues"]:
        assert (queue["hard_limit_seconds"], queue["visibility_timeout_seconds"]) == (660, 720)


def test_retention_outlives_every_delivery(bake):
    project = bake(project_slug="patient", visibility_timeout_seconds="43200", max_receive_count="20")
    contract = json.loads((project / "contract.json").read_text(encoding="utf-8"))
    assert contract["queue_defaults"]["retention_seconds"] == 43_200 * 20 + 86_400


def test_queues_when_joined_by_plus_then_share_a_worker(bake):
    project = bake(project_slug="shared", queues="high+default, low", workers_max="7")
    contract = RULES.read(project / "contract.json")
    assert [queue.name for queue in contract.queues] == ["high", "default", "low"]
    assert [(worker.name, worker.queues, worker.max) for worker in contract.workers] == [
        ("high", ("high", "default"), 7),
        ("low", ("low",), 7),
    ]
