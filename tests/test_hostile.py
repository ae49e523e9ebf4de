"""Whatever is answered: a refusal that names the question and leaves the disk alone, or a project that has it as data.

Thousands of answers go the way of typed ones, through cookiecutter's own questions and the check of
hooks/answers.py: each fragment below in each answer, and 1,000 that hypothesis puts together. What
passes is rendered into the files that carry answers, and those are looked at; the others are copies,
which no answer reaches. Some are baked for good, over a project that is there already, and all of
what comes out is looked at. The two worst that fit go through linter, Terraform and the project's
own fast tests.

Answers given as key=value go another way: an option can be any text there, and cookiecutter renders
all of them before they are answers. Some hundreds of these are held to the same.

The examples are the same in every run. For others:

    pytest tests/test_hostile.py --hypothesis-profile=explore
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest.mock
from fnmatch import fnmatch
from pathlib import Path

import pytest
from conftest import CHOICES, PARSERS, PROJECT, QUESTIONS, RULES, TEMPLATE, need, tree
from cookiecutter import prompt
from cookiecutter.exceptions import FailedHookException, UndefinedVariableInTemplate
from cookiecutter.generate import generate_context
from cookiecutter.main import cookiecutter
from cookiecutter.utils import create_env_with_context
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

pytestmark = pytest.mark.timeout(900)

ASKED = [name for name in QUESTIONS if not name.startswith("_")]
NUMBERS = [name for name in ASKED if name.endswith("_seconds") or name in ("max_receive_count", "workers_max")]

# What ends a string, begins an expression or a comment, or means something else than it says.
FRAGMENTS = (
    *('"', "'", '"""', "'''", "`", "```", "~~~", "\\", '\\"', "\\n", "\\u0000", "\\x41", '",', '"}', '"], "x": ["'),
    *("{", "}", "{{", "}}", "{%", "%}", "{#", "#}", "{{ 7 * 7 }}", "{{ cookiecutter }}", "{% raw %}", "{ {"),
    *("${HOME}", "$(id)", "`id`", "; id", "| id", "&& id", "> /tmp/x", "$$", "!!", "*", "~", "%s", "%(x)s", "#{x}"),
    *("\n", "\r", "\t", "\x00", "\x07", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u00a0", "\u3000", "\n\n# heading\n"),
    *("---", "...", "- ", "? ", ": ", "# ", " #", "&a", "*a", "!!python/object", "|", ">", "@", "[", "]", ", "),
    *("${", "%{", "=", "<<EOT", "|a|b|"),
    *("<!--", "-->", "<script>", "</script>", "<pre>", "<![CDATA[", "<?", "<b>", "[x](y)", "![x](y)", "    "),
    *("/", "../", "..\\", "/etc/passwd", "C:\\", "con", "file://", "https://example.com"),
    *("None", "null", "true", "NaN", "Infinity", "yes", "import", "class", "json", "python", "test", "celery"),
    *("0", "-1", "1e3", "1_000", "0x10", "1.5", "+7", "٣٠٠", "７", "²", "9" * 15, "9" * 16, "9" * 400, "-0", "007"),
    *("é", "漢字", "🍰", "👩‍💻", "\u202e", "\u200b", "\u200d", "\ufeff", "\ud800", "e\u0301", "ß", "İ", "x" * 60),
    *(
        "x" * 300,
        "+",
        "++",
        "a+b",
        "+a+b+c+d+e",
        "default",
        ".fifo",
        "-dlq",
        "-",
        "--",
        "_",
        ".",
        "a@b.c",
        "queue-first",
        "producer",
    ),
)
odd = st.lists(
    st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4), st.sampled_from("abc xyz-019")), min_size=1, max_size=6
).map("".join)
name = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,6}){0,2}", fullmatch=True) | st.sampled_from(
    [fragment for fragment in FRAGMENTS if re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", fragment)]
)
line = (odd | st.text(min_size=1)).map(
    lambda text: re.sub(r"{[%#{]", "{ ", "".join(filter(str.isprintable, text))).strip()[:60] or "plain"
)
FITTING = {
    "project_name": line,
    "project_slug": name,
    "description": line,
    "region": st.sampled_from(["eu-west-1", "us-gov-east-1", "ap-southeast-4"]),
    **{choice: st.sampled_from(options) for choice, options in CHOICES.items()},
    "queues": st.lists(name, min_size=1, max_size=5, unique=True).flatmap(
        lambda names: st.lists(
            st.sampled_from([", ", ",", " ,, ", "+", " + "]), min_size=len(names), max_size=len(names)
        ).map(lambda between: "".join(itertools.chain(*zip(["", *between], names, strict=False))))
    ),
    "soft_limit_seconds": st.integers(1, 600).map(str),
    "hard_limit_seconds": st.integers(601, 3_600).map(str),
    "max_countdown_seconds": st.integers(0, 3_600).map(str),
    "visibility_timeout_seconds": st.integers(21_660, 43_200).map(str),
    "max_receive_count": st.integers(1, 27).map(str),
    "workers_max": st.integers(1, 5_000).map(" {:03} ".format),
    "alarm_email": st.sampled_from(["", "on-call+aws@example.co.uk", "a_b.c%d=e!f#$&*/?^|~@x-y.example"]),
}


def hostile_to(question):
    """Return anything odd, by itself or in the middle of what would fit."""
    inserted = st.builds(
        lambda fits, wrong, where: fits[:where] + wrong + fits[where:], FITTING[question], odd, st.integers(0, 20)
    )
    return odd | inserted


@st.composite
def typed_answers(draw, *, given=False):
    """Answers to some questions, the defaults for the rest; at most two are made to be wrong."""
    hostile = draw(st.sets(st.sampled_from(ASKED), max_size=2))
    answered = hostile | draw(st.sets(st.sampled_from(ASKED)))
    if "project_name" in answered:
        answered.add("project_slug")  # What follows from an odd name is no name for a folder.
    # Nobody can type another option than those there are: a list is answered with a number.
    may_be_wrong = hostile if given else hostile - CHOICES.keys()
    return {
        question: draw(hostile_to(question) if question in may_be_wrong else FITTING[question])
        for question in ASKED
        if question in answered
    }


@contextlib.contextmanager
def typing(answers):
    """Answer cookiecutter's questions; Enter where there is no answer."""

    def read(question, default, *_):
        return answers.get(question, default)

    def choose(question, options, *_):
        return answers.get(question, options[0])

    with (
        unittest.mock.patch.object(prompt, "read_user_variable", read),
        unittest.mock.patch.object(prompt, "read_user_choice", choose),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        yield


def ask(answers):
    """Return everything cookiecutter knows when it begins to write."""
    context = generate_context(context_file=str(TEMPLATE / "cookiecutter.json"))
    with typing(answers):
        known = prompt.prompt_for_config(context)
    return {**known, "_template": str(TEMPLATE)}


COOKIECUTTERS_OWN = (ValueError, UndefinedVariableInTemplate)
"""What it raises for an option that is not there, and for an answer that is a template of what is not there."""


def give(answers):
    """Return the same where answers are given as key=value, and what these became by being rendered.

    Raises:
        COOKIECUTTERS_OWN: an answer is refused before ours see it.
    """
    context = generate_context(context_file=str(TEMPLATE / "cookiecutter.json"), extra_context=answers)
    known = {**prompt.prompt_for_config(context, no_input=True), "_template": str(TEMPLATE)}
    rendered = {question: known[question] for question in answers}
    plain = {question: answer for question, answer in answers.items() if not re.search(r"[{\r]", answer)}
    assert {question: rendered[question] for question in plain} == plain
    return known, rendered


ENVIRONMENT = create_env_with_context({"cookiecutter": {"_extensions": QUESTIONS["_extensions"]}})
FOLDER = ENVIRONMENT.from_string(PROJECT.name)
WITH_ANSWERS = {
    path.relative_to(PROJECT).as_posix(): ENVIRONMENT.from_string(path.read_text(encoding="utf-8"))
    for path in sorted(PROJECT.rglob("*"))
    if path.is_file() and not any(fnmatch(path.name, copied) for copied in QUESTIONS["_copy_without_render"])
}

# `delivery.sqs.md` and its like lose their option's name.
BAKED = {re.sub(r"\.(sqs|rabbitmq)\.", ".", name) for name in WITH_ANSWERS}


def write(known):
    """Return the files that carry answers, as they would be written.

    Raises:
        FailedHookException: the answers are refused.
    """
    assert FOLDER.render(cookiecutter=known) == known["project_slug"]
    return {name: template.render(cookiecutter=known) + "\n" for name, template in WITH_ANSWERS.items()}


def outline(page):
    """Return the headings that a reader of a page finds, but the first: the project's name."""
    tokens = MarkdownIt().parse(page)
    return [
        text.content for mark, text in itertools.pairwise(tokens) if mark.type == "heading_open" and mark.level == 0
    ][1:]


OUTLINE = outline(write(ask({}))["README.md"])


def is_data(answers, known, files):
    """Check that what was typed stands where it belongs, as it was typed, and changes nothing else."""
    assert all(character.isprintable() or character == "\n" for character in files["contract.json"])
    contract = json.loads(files["contract.json"])
    assert RULES.problems(contract) == []
    queue, worker = (contract[f"{kind}_defaults"] for kind in ("queue", "worker"))
    written = {**queue, **contract, "project_slug": contract["service"], "workers_max": worker["max"]}
    for question, answer in answers.items():
        if question == "queues":
            groups = [[name.strip() for name in part.split("+") if name.strip()] for part in answer.split(",")]
            assert [worker["queues"] for worker in contract["workers"]] == list(filter(None, groups))
            assert [queue["name"] for queue in contract["queues"]] == list(itertools.chain(*groups))
        else:
            assert written[question] == (int(answer) if question in NUMBERS else answer), question
    project = PARSERS[".toml"](files["pyproject.toml"])["project"]
    assert (project["name"], project["description"]) == (known["project_slug"], known["description"])
    assert project["scripts"] == {known["project_slug"]: f"{contract['package']}.__main__:main"}
    assert files["README.md"].startswith(f"# {known['project_name']}\n")
    assert known["description"] in files["README.md"]
    assert outline(files["README.md"]) == OUTLINE


def is_refusal(error):
    """Return the questions it names; check that it says of each why, in text that any terminal shows."""
    said = str(error)
    listed = said.partition(" not fit, and nothing was written:\n")[2]
    named = re.findall(r"^  (\w+) (?=\S)", listed, re.MULTILINE)
    assert named, said
    assert set(named) <= {*ASKED, "__package"}, said
    assert listed.count("\n      given: ") == listed.count("\n      try:   ") == len(named), said
    assert all(character.isprintable() or character == "\n" for character in said), ascii(said)
    return named


def is_refusal_of_cookiecutters(error):
    """Return the question it names."""
    said = getattr(error, "message", str(error))
    (named,) = re.findall(r" variable '?(\w+)(?:'$|, but the choices are )", said)
    assert named in ASKED, said
    return [named]


@settings(max_examples=200)
@given(typed_answers())
def test_what_is_typed_is_refused_or_data(answers):
    event("refused" if is_refused_or_data(ask(answers), answers) else "written")


@pytest.mark.slow
@settings(max_examples=1_000)
@given(typed_answers())
def test_much_more_that_is_typed_is_refused_or_data(answers):
    event("refused" if is_refused_or_data(ask(answers), answers) else "written")


USUAL = {
    "project_name": "Acme Jobs",
    "project_slug": "acme-jobs",
    "description": "Background jobs",
    "region": "eu-west-1",
    "queues": "high, low",
    "soft_limit_seconds": "240",
    "hard_limit_seconds": "300",
    "max_countdown_seconds": "300",
    "visibility_timeout_seconds": "6600",
    "max_receive_count": "5",
    "workers_max": "10",
    "alarm_email": "on-call@example.com",
}


@pytest.mark.slow
@pytest.mark.parametrize("question", USUAL)
def test_each_fragment_in_each_answer_is_refused_or_data(question):
    right = USUAL[question]
    for fragment in FRAGMENTS:
        for wrong in (fragment, right[:2] + fragment + right[2:], right + fragment):
            answers = {**USUAL, question: wrong}
            named = is_refused_or_data(ask(answers), answers)
            # A number can fit by itself and yet be too long for another.
            assert not named or question in named or question in NUMBERS


def is_refused_or_data(known, answers):
    """Return the questions that a refusal names, or none if what was answered is data."""
    try:
        files = write(known)
    except FailedHookException as error:
        return is_refusal(error)
    is_data(answers, known, files)
    return []


@settings(max_examples=300)
@given(typed_answers(given=True))
def test_what_is_given_is_refused_or_data(answers):
    event("refused" if is_given_refused_or_data(answers) else "written")


def is_given_refused_or_data(answers):
    """Return the questions that a refusal names, or none if what was given is data."""
    try:
        understood = give(answers)
    except COOKIECUTTERS_OWN as error:
        return is_refusal_of_cookiecutters(error)
    return is_refused_or_data(*understood)


@pytest.mark.slow
@pytest.mark.parametrize("question", [*USUAL, *CHOICES])
def test_each_fragment_given_as_each_answer_is_refused_or_data(question):
    for fragment in FRAGMENTS:
        is_given_refused_or_data({**USUAL, question: fragment})


COPIES = {path.read_bytes() for path in PROJECT.rglob("*") if path.is_file()}


@pytest.mark.slow
@settings(max_examples=120, phases=[Phase.generate])  # To shrink what bakes takes minutes.
@given(answers=typed_answers())
def test_typed_over_a_project_it_is_left_alone_or_a_whole_one_is_baked(bake, answers):
    with typing(answers):
        leave_alone_or_bake_a_whole_one(bake(), lambda: (ask(answers), answers))


@pytest.mark.slow
@settings(max_examples=60, phases=[Phase.generate])
@given(answers=typed_answers(given=True))
def test_given_over_a_project_it_is_left_alone_or_a_whole_one_is_baked(bake, answers):
    leave_alone_or_bake_a_whole_one(bake(), lambda: give(answers), no_input=True, extra_context=answers)


def leave_alone_or_bake_a_whole_one(existing, understood, **options):
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        shutil.copytree(existing, here / "acme-jobs")
        (here / "acme-jobs" / "mine.txt").write_text("mine")
        before = tree(here)
        options |= {"default_config": True, "overwrite_if_exists": True, "output_dir": temporary}
        try:
            project = Path(cookiecutter(str(TEMPLATE), **options))
        except (FailedHookException, *COOKIECUTTERS_OWN) as error:
            event("refused")
            assert (is_refusal if isinstance(error, FailedHookException) else is_refusal_of_cookiecutters)(error)
            assert tree(here) == before
            return
        event("baked")
        assert project.parent.samefile(here)
        is_whole(*understood(), project)
        others = {name: text for name, text in tree(here).items() if not name.startswith(f"{project.name}/")}
        assert others == {name: text for name, text in before.items() if not name.startswith(f"{project.name}/")}


def is_whole(known, answers, project):
    """Check that all of a project is there: what carries answers, the copies, a module for each queue."""
    files = {name: path.read_text(encoding="utf-8") for name, path in paths(project).items()}
    is_data(answers, known, files)
    package = known["__package"]
    for name, text in files.items():
        if parse := PARSERS.get(name[name.rfind(".") :]):
            parse(text)
        carries_answers = name.replace(f"src/{package}/", "src/{{cookiecutter.__package}}/") in BAKED
        # Tests of the project hold these to what they follow from.
        others = ("mine.txt", "compose.yaml", "chassis/SHA256SUMS")
        assert carries_answers or name in others or text.encode() in COPIES, name
    for queue in json.loads(files["contract.json"])["queues"]:
        assert f"src/{package}/tasks/{queue['name'].replace('-', '_')}.py" in files


def paths(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


# As hostile as answers can be that fit.
WORST = [
    {
        "project_name": "\"\"\" ''' }} %} ${HOME} $(id) `id` # | * [x](y) <!--",
        "project_slug": "x" * 28,
        "description": "```",
        "queues": "queue-first, producer + none, a, self",
        "max_countdown_seconds": "0",
        "soft_limit_seconds": "1",
        "hard_limit_seconds": "2",
        "visibility_timeout_seconds": "64",
        "max_receive_count": "1000",
        "workers_max": "1",
        "alarm_email": "a_b.c%d=e!f#$&*/?^|~@x-y.example",
    },
    {
        "project_name": "漢字 🍰 İ ß é",
        "project_slug": "a",
        "description": '<!-- \\" {x} %s \\u0041 --- : {{'.rstrip("{"),
        "broker": "sqs-fifo",
        "queues": ",".join(f"q{number}" for number in range(6)),
        "results": "dynamodb",
        "credentials": "keys",
        "compute": "ec2",
        "soft_limit_seconds": "42838",
        "hard_limit_seconds": "43140",
        "max_countdown_seconds": "0",
        "visibility_timeout_seconds": "43200",
        "max_receive_count": "27",
        "workers_max": "5000",
    },
]


@pytest.mark.slow
@pytest.mark.parametrize("answers", WORST, ids=["short", "long"])
def test_worst_answers_that_fit_bake_a_project_that_passes_lint_and_tests(tmp_path, answers):
    need("terraform")
    with typing(answers):
        project = Path(cookiecutter(str(TEMPLATE), default_config=True, output_dir=str(tmp_path)))
    is_whole(ask(answers), answers, project)
    python = (sys.executable, "-m")
    for command in (
        (*python, "ruff", "check", "--no-cache", "."),
        (*python, "ruff", "format", "--check", "--no-cache", "."),
        (*python, "pytest", "-q", "-p", "no:cacheprovider", "-m", "not end_to_end"),
    ):
        run = subprocess.run(command, cwd=project, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
