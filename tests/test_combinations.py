"""Every combination of choices, baked: the right files, whole, parsing and clean."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from urllib.parse import unquote

import jsonschema
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from conftest import CHOICES, COMBINATIONS, PAIRS, PARSERS, PROJECT, TEMPLATE, anchors, label, need, tree

OPTIONS = {option for options in CHOICES.values() for option in options} | {"sqs"}

COMPOSE = jsonschema.Draft202012Validator(get_builtin_schema("vendor.compose-spec"))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def expected_files(contract):
    """Apply the one naming rule to the template's files."""
    chosen = {contract[choice] for choice in CHOICES}
    chosen |= {option.split("-")[0] for option in chosen}
    expected = set()
    for name in files(PROJECT):
        name = name.replace("{{cookiecutter.__package}}", contract["package"])
        folder, slash, file = name.rpartition("/")
        if file == "queue.stub.py":
            continue
        thing, *between = file.split(".")
        if folder.startswith("chassis"):
            if {*folder.split("/"), *re.split(r"[._]", file)} & OPTIONS <= chosen:
                expected.add(name)
            continue
        of = {part for part in between[:-1] if part in OPTIONS}
        if of <= chosen:
            expected.add(folder + slash + ".".join((thing, *(part for part in between if part not in of))))
    tasks = {f"src/{contract['package']}/tasks/{queue['name'].replace('-', '_')}.py" for queue in contract["queues"]}
    return expected | tasks | {"compose.yaml", "chassis/SHA256SUMS"}


@pytest.mark.parametrize("answers", COMBINATIONS, ids=label)
def test_combination(bake, answers):
    project = bake(**answers)
    contract = json.loads((project / "contract.json").read_text(encoding="utf-8"))
    assert {name: contract[name] for name in answers} == answers
    assert files(project) == sorted(expected_files(contract))
    assert [folder for folder in project.rglob("*") if folder.is_dir() and not any(folder.iterdir())] == []
    for name in files(project):
        text = (project / name).read_text(encoding="utf-8")
        assert text == "" or text.endswith("\n"), f"{name} does not end with a line break"
        without_github = re.sub(r"\${{[^{}]*}}", "", text)
        strays = "cookiecutter" if name.endswith(".html") else r"{{ | }}|{%|%}|cookiecutter"  # Templates of pages.
        assert not re.search(strays, without_github), f"a stray brace in {name}"
        if parse := PARSERS.get(name[name.rfind(".") :]):
            parsed = parse(text)
            if name == "compose.yaml":
                COMPOSE.validate(parsed)
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check"], ["format", "--check"]):
        run = subprocess.run([*ruff, *command, "--no-cache", "."], cwd=project, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr


def editors_are_told(project):
    """Return the sections of .editorconfig: a regular expression for names of files, and what is said of these."""
    parser = configparser.ConfigParser()
    parser.read_string("[DEFAULT]\n" + (project / ".editorconfig").read_text(encoding="utf-8").partition("\n")[2])
    for section in parser.sections():
        pattern = re.escape(section).replace(r"\*", ".*").replace(r"\{", "(").replace(r"\}", ")").replace(",", "|")
        yield re.compile(pattern), dict(parser[section])


@pytest.mark.parametrize("answers", PAIRS, ids=label)
def test_every_file_is_as_editors_are_told(bake, answers):
    project = bake(**answers)
    assert (project / ".editorconfig").read_text(encoding="utf-8").startswith("root = true\n")
    sections = list(editors_are_told(project))
    for name in files(project):
        text = (project / name).read_bytes().decode("utf-8")
        told = {}
        for pattern, settings in sections:
            told |= settings if pattern.fullmatch(name.rpartition("/")[2]) else {}
        assert (told["charset"], told["end_of_line"]) == ("utf-8", "lf")
        assert told["insert_final_newline"] == told["trim_trailing_whitespace"] == "true"
        assert not re.search(r"\r|[ \t]$", text, re.MULTILINE), name
        indents = set(re.findall(r"^[ \t]+(?=[^ \t])", text, re.MULTILINE))
        if told["indent_style"] == "tab":
            assert {indent for indent in indents if indent[0] != "\t"} == set(), name
        else:
            assert not any("\t" in indent for indent in indents), name
            # Prose and comments are indented as they like, and so is what continues a line.
            if name.endswith((".json", ".yml", ".yaml", ".toml")):
                size = int(told["indent_size"])
                assert {len(indent) % size for indent in indents} <= {0}, name


@pytest.mark.parametrize("of", ["project", "template"])
def test_make_alone_lists_all_it_can_do(bake, of):
    need("make")
    folder = TEMPLATE if of == "template" else bake()
    environment = {**os.environ, "MAKEFLAGS": ""}
    listed = subprocess.run(["make"], cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
    makefile = TEMPLATE / "Makefile" if of == "template" else folder / "chassis" / "make.mk"
    targets = re.findall(r"^\.PHONY: ([\w-]+)$", makefile.read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"^  make ([\w-]+) +\S", listed, re.MULTILINE) == targets


def test_what_the_contract_says_is_written_nowhere_else(bake):
    """So that an edit of contract.json is all it takes; `make` writes compose.yaml and README.md, which hold copies."""
    other = {
        "queues": "high, default, low, more",
        "soft_limit_seconds": "111",
        "hard_limit_seconds": "222",
        "max_countdown_seconds": "33",
        "visibility_timeout_seconds": "4444",
        "max_receive_count": "7",
        "workers_max": "3",
        "alarm_email": "a@b.c",
    }
    before, after = tree(bake()), tree(bake(**other))
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"contract.json", "compose.yaml", "README.md", "src/acme_jobs/tasks/more.py"}
    assert before.keys() <= after.keys()


def broken_links(root):
    """Return the links between pages that lead nowhere."""
    for page in (*root.glob("*.md"), *root.glob("docs/*.md")):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            file, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            linked = (page.parent / unquote(file)) if file else page
            if not linked.exists() or (anchor and anchor not in anchors(linked)):
                yield f"{page.relative_to(root)}: {target}"


@pytest.mark.parametrize(
    "answers",
    [{}, {"broker": "sqs-fifo", "compute": "ec2", "credentials": "keys"}, {"broker": "rabbitmq"}],
    ids=str,
)
def test_links_between_pages_lead_somewhere(bake, answers):
    assert list(broken_links(bake(**answers))) == []
    assert list(broken_links(TEMPLATE)) == []


HOSTILE = [
    "Quotes \"\"\" and ''' and `ticks` and \\",
    "${HOME} $(id) #{x} %s %(y)s <b> & | ; *",
    "---",
    "# title",
    "- null: true",
    "Ünïcödé 漢字 🍰",
    "]] [[ = , {x: 1}",
    "0x10",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_odd_but_allowed_text_is_data_everywhere(bake, text):
    project = bake(project_name=text, project_slug="odd", description=text)
    contract = json.loads((project / "contract.json").read_text(encoding="utf-8"))
    assert (contract["project_name"], contract["description"]) == (text, text)
    toml = PARSERS[".toml"]((project / "pyproject.toml").read_text(encoding="utf-8"))
    assert toml["project"]["description"] == text
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {text}\n")


def test_files_of_the_chassis_are_the_same_whatever_the_answers(bake):
    """Of those that two services have both; so that the checksums are, too."""
    seen = {}
    for answers in COMBINATIONS:
        for name, content in tree(bake(**answers) / "chassis").items():
            assert seen.setdefault(name, content) == content, name


@pytest.mark.parametrize("answers", COMBINATIONS, ids=label)
def test_no_code_of_an_option_not_chosen(bake, answers):
    project = bake(**answers)
    for path in (*project.rglob("*.py"), project / "pyproject.toml", *project.glob("requirements*.txt")):
        if "chassis" in path.parts:
            continue  # What is there is the same in every service, or a file of an option that was chosen.
        text = path.read_text(encoding="utf-8").lower()
        for option in {"s3", "dynamodb", "redis"} - {answers["results"]}:
            found = re.search(rf"(?<![a-z]){option}(?![a-z0-9])", text.replace("moto[dynamodb,s3]", ""))
            allowed = option in ("s3", "dynamodb") and (path.name.startswith("requirements") or "tests" in path.parts)
            assert not found or allowed, f"{option} in {path.relative_to(project)}"


@pytest.mark.parametrize("answers", COMBINATIONS, ids=label)
def test_no_word_of_a_broker_not_chosen(bake, answers):
    words = ("rabbitmq", "amqps?:", "amazon mq") if answers["broker"] != "rabbitmq" else ("sqs",)
    project = bake(**answers)
    found = [
        f"{name}: {line.strip()}"
        for name in files(project)
        # The chassis is the same in every service, and pins and types name what they are not asked for.
        if not name.startswith("chassis/") and not name.endswith(".txt")
        for line in (project / name).read_text(encoding="utf-8").splitlines()
        if re.search("|".join(words), line, re.IGNORECASE) and "must be one of" not in line
    ]
    assert found == []
