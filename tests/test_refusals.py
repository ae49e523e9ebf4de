"""Wrong answers: refused with the reason, all at once, and nothing is written."""

from __future__ import annotations

import json
import os
import signal
import sys

import pexpect
import pytest
from conftest import QUESTIONS, TEMPLATE, tree

# Question, wrong answer, a part of the rule, what to try.
WRONG = [
    ("project_name", "", "must be 1 to 60 printable characters", "a plain line of text"),
    ("project_name", "bell\x07", "must be 1 to 60 printable characters", "bell"),
    ("project_slug", "Acme Jobs", "must be lower-case letters", "acme-jobs"),
    ("project_slug", "../elsewhere", "must be lower-case letters", "elsewhere"),
    ("project_slug", "import", "must not be a Python keyword", "import-jobs"),
    ("project_slug", "celery", "must not make a package that a dependency", "celery-jobs"),
    ("project_slug", "python", "must not make a package that a dependency", "python-jobs"),
    ("project_slug", "test", "must not make a package that a dependency", "test-jobs"),
    ("description", "two\nlines", "must be 1 to 200 printable characters", "twolines"),
    (
        "description",
        "100 {% off",
        "must be 1 to 200 printable characters without template syntax",
        "100  off",
    ),
    ("region", "mars", "must look like an AWS region", "eu-west-1"),
    ("queues", ",", "must be lower-case letters", "default"),
    ("queues", "high, high", "must be unique", "each queue once"),
    (
        "queues",
        "Gro\u00df",
        'must be lower-case letters, digits and single hyphens, and start with a letter\n      given: "Gro\u00df"',
        "gro",
    ),
    ("queues", "high, Low_", "must be lower-case letters", "low"),
    ("queues", "+", "must be lower-case letters", "default"),
    ("queues", "high+high", "must be unique", "each queue once"),
    ("queues", "high+default, high", "must be unique", "each queue once"),
    ("queues", "high+Low_, x", "must be lower-case letters", "low"),
    ("queues", "high&low", "must be lower-case letters", "high-low"),
    ("queues", "a+b+c+d+e+f", "must list the names of 1 to 5 queues for a worker", "a+b+c+d+e"),
    ("queues", ",".join(f"q{n}" for n in range(21)), "must list 1 to 20 queues", "high, default, low"),
    ("soft_limit_seconds", "0", "must be between 1 and 43080", "1"),
    ("hard_limit_seconds", "240", "must be greater than soft_limit_seconds (240)", "300"),
    ("hard_limit_seconds", "1e3", "must be a whole number", "digits only, such as 60"),
    ("hard_limit_seconds", "٣٠٠", "must be a whole number", "digits only, such as 60"),
    (
        "max_countdown_seconds",
        "43000",
        "plus hard_limit_seconds (300) plus 60 must be at most 43200, SQS's longest timeout",
        "42840",
    ),
    ("visibility_timeout_seconds", "659", "must be at least max_countdown_seconds (300)", "660"),
    ("max_receive_count", "1001", "must be between 1 and 1000", "1000"),
    ("workers_max", "0", "must be between 1 and 5000", "1"),
    ("workers_max", "9" * 300, "must be a whole number", "digits only, such as 60"),
    ("alarm_email", "on call", "must be empty or one e-mail address", "on-call@example.com"),
]


def refusal(output):
    """Return the list of what is wrong, which must end the output."""
    _, _, listed = output.partition(" not fit, and nothing was written:\n")
    assert listed, output
    assert "Traceback" not in output
    assert listed.rstrip().splitlines()[-1].startswith(("      try:", "      why:"))
    return listed


@pytest.mark.parametrize(("question", "answer", "rule", "suggestion"), WRONG)
def test_one_wrong_answer(cookiecutter_command, question, answer, rule, suggestion):
    run = cookiecutter_command(TEMPLATE, "--no-input", f"{question}={answer}")
    assert run.returncode == 1
    listed = refusal(run.stdout)
    assert f"\n  {question} {rule}" in listed
    assert f"try:   {suggestion}\n" in listed
    assert list(cookiecutter_command.here.iterdir()) == []


def test_shared_worker_when_messages_wait_too_long_then_is_refused(cookiecutter_command):
    run = cookiecutter_command(TEMPLATE, "--no-input", "queues=a+b+c, d", "visibility_timeout_seconds=1259")
    listed = refusal(run.stdout)
    assert listed.count("visibility_timeout_seconds must also cover other_tasks_seconds (600)") == 1
    assert "try:   1260\n" in listed


def test_default_when_computed_from_a_wrong_answer_then_is_not_reported(cookiecutter_command):
    run = cookiecutter_command(TEMPLATE, "--no-input", "max_countdown_seconds=-185")
    assert "1 answer does not fit" in run.stdout
    assert "visibility_timeout_seconds" not in run.stdout
    assert "max_countdown_seconds must not be negative" in refusal(run.stdout)


def test_many_wrong_answers_are_refused_at_once_in_the_order_of_the_questions(cookiecutter_command):
    wrong = {
        "project_name": "x" * 61,
        "project_slug": "9lives",
        "region": "moon-1",
        "queues": "UPPER",
        "soft_limit_seconds": "-1",
        "hard_limit_seconds": "none",
        "max_countdown_seconds": "-5",
        "visibility_timeout_seconds": "99999",
        "max_receive_count": "0",
        "workers_max": "0",
        "alarm_email": "@",
    }
    run = cookiecutter_command(TEMPLATE, "--no-input", *(f"{name}={value}" for name, value in wrong.items()))
    assert run.returncode == 1
    assert "11 answers do not fit" in run.stdout
    listed = refusal(run.stdout)
    named = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
    assert list(dict.fromkeys(named)) == [name for name in QUESTIONS if name in wrong]
    assert list(cookiecutter_command.here.iterdir()) == []


def test_name_that_is_taken_is_refused_together_with_other_wrong_answers(cookiecutter_command):
    run = cookiecutter_command(TEMPLATE, "--no-input", "project_slug=celery", "region=mars")
    assert (run.returncode, "2 answers do not fit" in run.stdout) == (1, True), run.stdout
    assert "must not make a package that a dependency" in refusal(run.stdout)
    assert "region must look like" in refusal(run.stdout)


def test_right_answers_are_handed_back_to_be_kept(run, cookiecutter_command):
    answers = ["project_name=Joe's Jobs", "results=redis", "max_receive_count=7"]
    refused = cookiecutter_command(TEMPLATE, "--no-input", *answers, "region=mars")
    kept = refused.stdout.partition("behind it:")[2].partition("1 answer does")[0].strip()
    assert "region=" not in kept
    again = run("sh", "-c", f"'{sys.executable}' -m cookiecutter '{TEMPLATE}' --no-input {kept}")
    assert again.returncode == 0, again.stdout
    contract = json.loads((run.here / "joe-s-jobs" / "contract.json").read_text(encoding="utf-8"))
    assert (contract["project_name"], contract["results"]) == ("Joe's Jobs", "redis")
    assert contract["queue_defaults"]["max_receive_count"] == 7


def test_a_refusal_leaves_an_existing_project_as_it_was(cookiecutter_command):
    assert cookiecutter_command(TEMPLATE, "--no-input").returncode == 0
    project = cookiecutter_command.here / "acme-jobs"
    (project / "mine.txt").write_text("mine")
    before = tree(project)
    run = cookiecutter_command(TEMPLATE, "--no-input", "--overwrite-if-exists", "hard_limit_seconds=1")
    assert run.returncode == 1
    refusal(run.stdout)
    assert tree(project) == before


def test_a_slug_that_exists_is_left_alone(cookiecutter_command):
    (cookiecutter_command.here / "acme-jobs").mkdir()
    (cookiecutter_command.here / "acme-jobs" / "mine.txt").write_text("mine")
    run = cookiecutter_command(TEMPLATE, "--no-input")
    assert run.returncode == 1
    assert "already exists" in run.stdout
    assert tree(cookiecutter_command.here) == {"acme-jobs/mine.txt": b"mine"}


def test_an_option_that_is_not_offered_is_refused(cookiecutter_command):
    run = cookiecutter_command(TEMPLATE, "--no-input", "broker=kafka")
    assert run.returncode == 1
    assert run.stderr.rstrip().endswith("but the choices are ['sqs-standard', 'sqs-fifo', 'rabbitmq'].")
    assert list(cookiecutter_command.here.iterdir()) == []


def test_an_edited_replay_file_is_checked_too(cookiecutter_command):
    assert cookiecutter_command(TEMPLATE, "--no-input", "project_slug=first").returncode == 0
    (saved,) = (cookiecutter_command.home / ".cookiecutter_replay").iterdir()
    replay = json.loads(saved.read_text(encoding="utf-8"))
    replay["cookiecutter"].update(project_slug="second", visibility_timeout_seconds="10")
    wrong = cookiecutter_command.home / "wrong.json"
    wrong.write_text(json.dumps(replay), encoding="utf-8")
    run = cookiecutter_command(TEMPLATE, "--replay-file", wrong)
    assert run.returncode == 1
    listed = refusal(run.stdout)
    assert "visibility_timeout_seconds must be at least" in listed
    assert "__package must be the service's name with underscores" in listed
    assert [path.name for path in cookiecutter_command.here.iterdir()] == ["first"]


@pytest.fixture
def typing(tmp_path):
    """Start `cookiecutter` on a terminal, to type answers into."""
    home = tmp_path / "home"
    home.mkdir()
    here = tmp_path / "here"
    here.mkdir()
    child = pexpect.spawn(
        sys.executable,
        ["-m", "cookiecutter", str(TEMPLATE)],
        cwd=str(here),
        env={**os.environ, "HOME": str(home), "TERM": "dumb", "COLUMNS": "200"},
        encoding="utf-8",
        timeout=30,
        # A terminal's foreground job hears Ctrl-C, even where the tests run as a background job.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    child.here = here
    yield child
    child.close(force=True)


def answer_all(child, **typed):
    for name in QUESTIONS:
        if name.startswith("_"):
            continue
        prompt = QUESTIONS["__prompts__"][name]
        child.expect_exact((prompt if isinstance(prompt, str) else prompt["__prompt__"])[:40])
        if not isinstance(prompt, str):
            child.expect_exact("Choose from")
        child.expect_exact(": ")
        child.sendline(typed.get(name, ""))
    child.expect(pexpect.EOF)
    child.wait()
    return child.before


def test_typed_answers_bake(typing):
    output = answer_all(typing, project_name="Paper Mill", broker="2", queues="urgent,slow", compute="2")
    assert typing.exitstatus == 0, output
    contract = json.loads((typing.here / "paper-mill" / "contract.json").read_text(encoding="utf-8"))
    assert (contract["broker"], contract["compute"]) == ("sqs-fifo", "ec2")
    assert [queue["name"] for queue in contract["queues"]] == ["urgent", "slow"]


def test_typed_template_syntax_is_refused(typing):
    output = answer_all(typing, description="{{ cookiecutter }}", alarm_email="{% x %}@example.com")
    assert typing.exitstatus == 1
    listed = refusal(output.replace("\r\n", "\n"))
    assert "description must be" in listed
    assert "alarm_email must be" in listed
    assert list(typing.here.iterdir()) == []


def test_ctrl_c_in_the_middle_leaves_nothing(typing):
    typing.expect_exact(QUESTIONS["__prompts__"]["project_name"])
    typing.sendline("Half a Project")
    typing.expect_exact("AWS name")
    typing.sendintr()
    while typing.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=5):
        typing.sendintr()  # Readline does not hear one that comes just before it waits.
    typing.wait()
    assert typing.exitstatus == 1
    assert "Traceback" not in typing.before
    assert list(typing.here.iterdir()) == []
