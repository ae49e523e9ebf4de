"""What `docs/` says is so: commands run, figures follow from what they are about, pictures are as they would be drawn.

Links are looked at in test_combinations.py, docs/updating.md is followed word for word in test_doors.py.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from urllib.parse import unquote
from xml.etree import ElementTree

import botocore.session
import jmespath
import pytest
from botocore import xform_name
from conftest import BIN, PROJECT, QUESTIONS, RULES, TEMPLATE, anchors, source_path, tree

DOCS = TEMPLATE / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BROKERS = {
    "SQS standard": {"credentials": "keys"},
    "SQS FIFO": {"broker": "sqs-fifo", "compute": "ec2"},
    "RabbitMQ": {"broker": "rabbitmq"},
}
"""Answers whose projects have every command and page between them."""
pictures = runpy.run_path(str(TEMPLATE / "tools" / "pictures.py"))


def text_of(name):
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def code_in_sentences(text):
    """Return what stands between single backticks, outside of blocks."""
    sentences = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", sentences)


def rows(text, heading):
    """Return the rows of the table whose first column has a heading, each as its cells."""
    table = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


RUN = """
import json, sys
from click.testing import CliRunner
from celery_aws import service
from celery_aws.cli import main
service.use("acme_jobs")
ran = [CliRunner().invoke(main, line.split()[1:], prog_name="acme-jobs") for line in json.load(sys.stdin)]
print(json.dumps([[one.exit_code, one.output] for one in ran]))
"""


def run_in(project, lines):
    """Run command lines of a project in one process; return exit code and output of each."""
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("ENVIRONMENT", "CONTRACT_FILE")},
        "PYTHONPATH": source_path(project),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "100",
        "LIVENESS_DIRECTORY": str(project / "nobody"),
    }
    ran = subprocess.run(
        (sys.executable, "-c", RUN),
        input=json.dumps(lines),
        env=environment,
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return [(code, re.sub(r" +$", "", output, flags=re.MULTILINE)) for code, output in json.loads(ran.stdout)]


# Commands


PROGRAMS = ("acme-jobs", "make", "cookiecutter", "cruft", "git")
"""What commands that stand in a sentence begin with."""


def typed(text):
    """Return the lines of a page's shell blocks, and the commands in its sentences."""
    lines = [line.partition(" #")[0].strip() for block in blocks(text, "sh") for line in block.splitlines()]
    spans = [span for span in code_in_sentences(text) if span.split()[0] in PROGRAMS and " " in span]
    return [line for line in lines if line], spans


READ = [TEMPLATE / "README.md", *PAGES]
LINES = [(page.name, line) for page in READ for line in typed(page.read_text(encoding="utf-8"))[0]]
SPANS = [(page.name, span) for page in READ for span in typed(page.read_text(encoding="utf-8"))[1]]
TYPED = sorted({*LINES, *SPANS})


def begins(line, others):
    """Tell whether a command is one of others, or one of them without what follows."""
    return any(other.split()[: len(line.split())] == line.split() for other in others)


@pytest.fixture(scope="session")
def projects(bake):
    return {broker: bake(**answers) for broker, answers in BROKERS.items()}


OFFLINE = ("beat", "contract", "cost", "health", "send", "worker")
"""Commands that need no AWS, or that can at least tell of themselves."""


def run_by_own_tests(projects):
    """Return the on-call commands of the projects' pages, which their tests run: see test_operations.py there."""
    pages = [project / name for project in projects.values() for name in ("docs/operations.md", "docs/runbook.md")]
    found = [line for page in pages for line in typed(page.read_text(encoding="utf-8").replace("   ```", "```"))[0]]
    return {line for line in found if line.startswith("acme-jobs ") and line.split()[1] not in OFFLINE}


def sample(shape):
    """Return a response of AWS: two of each list, and a word where one fits."""
    if shape.type_name == "structure":
        return {name: sample(member) for name, member in shape.members.items()}
    if shape.type_name == "list":
        return [sample(shape.member), sample(shape.member)]
    return {"key": sample(shape.value)} if shape.type_name == "map" else "word"


QUERY = re.compile(r"\baws ([a-z0-9]+) ([a-z-]+)(?:(?!\baws ).)*?--query ('[^']*'|\"[^\"]*\"|\S+)", re.DOTALL)


def test_queries_of_the_aws_command_select_fields_that_responses_have(projects, bake):
    pages = [
        page
        for project in (*projects.values(), bake(broker="rabbitmq", compute="ec2"))
        for page in project.rglob("*.md")
    ]
    found = {query for page in pages for query in QUERY.findall(page.read_text(encoding="utf-8"))}
    assert len(found) > 8
    for service, command, query in found:
        model = botocore.session.get_session().get_service_model({"s3api": "s3"}.get(service, service))
        (operation,) = (name for name in model.operation_names if xform_name(name, "-") == command)
        response = sample(model.operation_model(operation).output_shape)
        selected = jmespath.search(query.strip("'\"").replace("$NAME", "word"), response)
        assert selected, (service, command, query)
        assert "null" not in json.dumps(selected), (service, command, query)


def test_pages_have_commands():
    assert len(TYPED) > 40
    assert {name for name, _ in TYPED} >= {"operations.md", "troubleshooting.md", "questions.md", "updating.md"}


def test_commands_of_the_project_are_run_by_its_tests_or_here(projects):
    known = run_by_own_tests(projects)
    assert len(known) > 20
    ours = [(page, line) for page, line in TYPED if line.startswith("acme-jobs ") and not begins(line, known)]
    assert [(page, line) for page, line in ours if line.split()[1] not in OFFLINE] == []
    # Worker, beat and sender would wait for a broker.
    here = [
        f"{line} --help" if line.split()[1] in ("send", "worker", "beat") or line == "acme-jobs health" else line
        for _, line in ours
    ]
    ran = [run_in(project, here) for project in projects.values()]
    for line, *outcomes in zip(here, *ran, strict=True):
        wanted = 1 if line == "acme-jobs health high" else 0  # No worker runs here.
        assert any(code == wanted and output for code, output in outcomes), (line, outcomes)


@pytest.mark.parametrize(("page", "line"), [(page, line) for page, line in TYPED if line.startswith("make ")])
def test_make_has_the_targets(projects, page, line):
    makefiles = [TEMPLATE / "Makefile", projects["SQS standard"] / "chassis" / "make.mk"]
    for word in line.split()[1:]:
        name, is_variable, _ = word.partition("=")
        wanted = rf"\$[({{]{name}[)}}]" if is_variable else rf"^{name}:"
        found = [re.search(wanted, makefile.read_text(encoding="utf-8"), re.MULTILINE) for makefile in makefiles]
        assert any(found), f"{page}: no Makefile has {name}"


def test_all_other_commands_are_run_somewhere():
    followed = [line for name, line in LINES if name == "updating.md"]
    followed += [line for _, line in TYPED if line.startswith("cruft link")]  # test_doors.py runs it.
    workflow = (TEMPLATE / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8").splitlines()
    for page, line in TYPED:
        if line.split()[0] in ("acme-jobs", "make") or begins(line, followed) or (page, line) in ANSWERED:
            continue
        assert any(set(line.split()) <= set(step.split()) for step in workflow), f"{page}: no test runs {line}"


@pytest.mark.parametrize("broker", BROKERS)
def test_python_files_on_pages_pass_the_linter_of_the_project(project, broker):
    folder = project(**BROKERS[broker])
    exempt = blocks((folder / "docs" / "django.md").read_text(encoding="utf-8"), "toml")
    with (folder / "ruff.toml").open("a", encoding="utf-8") as rules:
        rules.write("".join(text.partition("[lint.per-file-ignores]\n")[2] for text in exempt))
    for page in (folder / "docs").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for indent, name, code in re.findall(r"^( *)```python\n *# (src/\S+)\n(.*?)^ *```", text, re.M | re.S):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code.removeprefix(indent).replace(f"\n{indent}", "\n"), encoding="utf-8")
            for command in (["check"], ["format", "--diff"]):
                ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", name]
                ran = subprocess.run(ruff, cwd=folder, capture_output=True, text=True)
                assert ran.returncode == 0, f"{page.name}: {ran.stdout}{ran.stderr}"


ANSWERED = [(name, line) for name, line in LINES if re.match(r"(uvx )?cookiecutter ", line) and name != "updating.md"]


def test_ways_to_answer(run):
    assert [name for name, _ in ANSWERED] == ["README.md", *["questions.md"] * 3]
    path = os.pathsep.join((str(BIN), os.environ["PATH"]))
    for number, (_, line) in enumerate(ANSWERED):
        folder = run.here / str(number)
        folder.mkdir()
        if "answers.json" in line:
            (replay,) = (run.home / ".cookiecutter_replay").iterdir()
            shutil.copy(replay, folder / "answers.json")
        # Without what would install another cookiecutter than this one.
        line = re.sub(r"gh:<org>/cookiecutter-celery-aws|…", str(TEMPLATE), line.removeprefix("uvx "))
        ran = run("sh", "-c", line, cwd=folder, env={"PATH": path}, input="\n" * 20)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    first, asked, given, replayed = (next((run.here / name).glob("*-*")) for name in "0123")
    assert (first.name, asked.name, given.name) == ("acme-jobs", "acme-jobs", "mail-room")
    assert tree(replayed) == tree(given)


def test_table_of_commands_has_all_of_them(bake):
    groups = [f"acme-jobs {name}" for name in ("delayed", "dlq", "keys", "queues", "schedules")]
    lines = ["acme-jobs", *groups]
    helped = run_in(bake(credentials="keys"), [f"{line} --help" for line in lines])
    listed = [
        f"{line} {name}".replace("  ", " ")
        for line, (_, output) in zip(lines, helped, strict=True)
        for name in re.findall(r"^  ([a-z]+) ", output.partition("Commands:")[2].partition("\n\n")[0], re.MULTILINE)
    ]
    shown = [cells[0].strip("`") for cells in rows(text_of("operations.md"), "command")]
    assert sorted(shown) == sorted({*listed} - {*groups})


# Figures


@pytest.fixture(scope="session")
def contracts(projects):
    return {
        broker: json.loads((project / "contract.json").read_text(encoding="utf-8"))
        for broker, project in projects.items()
    }


def test_table_of_timeouts_has_the_defaults(contracts):
    shown = rows(text_of("timeouts.md"), "field")
    assert len(shown) == 10
    for contract in contracts.values():
        values = {**contract, **contract["queue_defaults"]}
        assert [(field, figure) for field, figure, *_ in shown] == [
            (field, str(values[field.strip("`")])) for field, *_ in shown
        ]


def test_table_of_what_is_not_asked_has_every_such_field_with_its_default(contracts):
    shown = {}
    for names, values, _ in rows(text_of("questions.md"), "field"):
        fields = re.findall(r"`(\w+)`", names)
        if fields != ["instance_type"]:  # The only one that is no number.
            shown |= dict(zip(fields, map(float, re.findall(r"\b[0-9.]+", values)), strict=True))
    contract = contracts["SQS standard"]
    values = {**contract, **contract["queue_defaults"], **contract["worker_defaults"]}
    numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
    assert shown == {name: value for name, value in numbers.items() if name not in {*QUESTIONS, "max"}}


def test_sentences_on_timeouts_have_the_figures_that_follow(contracts):
    text = text_of("timeouts.md")
    queue = RULES.parse(contracts["SQS standard"]).queues[0]
    dead = queue.max_receive_count * queue.visibility_timeout_seconds
    assert re.findall(r"\b(\d+) seconds (?:after|on)\b", text) == [str(queue.seconds_to_dead_letter), str(dead)]
    assert queue.max_receive_count == 5
    assert f"countdown + hard limit + {RULES.HAND_OVER_SECONDS}," in text
    assert re.findall(r"\b(\d+) less than the next\b", text) == [str(RULES.STOP_MARGIN_SECONDS)]


@pytest.fixture(scope="session")
def defaults(bake):
    """Bake the default answers with each broker: others have other machines and secrets, which cost something."""
    names = {"SQS standard": "sqs-standard", "SQS FIFO": "sqs-fifo", "RabbitMQ": "rabbitmq"}
    return {name: bake(broker=broker) for name, broker in names.items()}


def test_costs_are_what_the_command_prints(defaults):
    text = text_of("costs.md")
    (line,) = (line for block in blocks(text, "sh") for line in block.splitlines())
    printed = [run_in(defaults[broker], [line])[0] for broker in ("SQS standard", "RabbitMQ")]
    assert [(0, output) for output in blocks(text, "text")] == printed


def test_costs_in_readme_are_those_of_the_page():
    dollars = re.findall(r"\$[\d.,]*\d", (TEMPLATE / "README.md").read_text(encoding="utf-8"))
    assert dollars
    assert [amount for amount in dollars if f"| {amount} |" not in text_of("costs.md")] == []


def test_costs_of_other_loads(defaults):
    shown = rows(text_of("costs.md"), "command")
    for column, (broker, project) in enumerate(defaults.items(), 1):
        asked = [cells for cells in shown if cells[column]]
        ran = run_in(project, [f"{cells[0].strip('`')} --json" for cells in asked])
        for cells, (code, output) in zip(asked, ran, strict=True):
            assert code == 0, output
            assert cells[column] == f"${json.loads(output)['dollars_per_month']:,.2f}", (broker, cells[0])
        left = [f"{cells[0].strip('`')} --json" for cells in shown if not cells[column]]
        assert all(code for code, _ in run_in(project, left)), f"{broker} has more of these than the page says"


def test_costs_of_results(bake):
    shown = rows(text_of("costs.md"), "`results`")
    assert [cells[0].strip("`") for cells in shown] == list(RULES.CHOICES["results"])
    for name, dollars in shown:
        ((code, output),) = run_in(bake(results=name.strip("`")), ["acme-jobs cost --json"])
        assert code == 0, output
        assert dollars.split(",")[0] == f"${json.loads(output)['dollars_per_month']:,.2f}"


def test_costs_when_networks_differ_then_are_told_of_each(projects):
    environment = (projects["SQS standard"] / "chassis/celery_aws/cost/environment.py").read_text(encoding="utf-8")
    networks = re.findall(r'"(\w+)"', re.search(r"^NETWORKS = (.*)$", environment, re.MULTILINE)[1])
    shown = {cells[0].strip("`") for cells in rows(text_of("costs.md"), "command")}
    default, *others = networks
    assert default == "nat"
    assert {f"acme-jobs cost --network {network}" for network in others} < shown


def test_limits_of_fifo_are_those_of_the_code(bake):
    text = text_of("fifo.md")
    project = bake(broker="sqs-fifo")
    headers = (project / "chassis" / "celery_aws" / "headers.py").read_text(encoding="utf-8")
    longest = re.search(r"^MAX_ID_CHARACTERS = ([0-9]+)$", headers, re.MULTILINE)[1]
    assert re.findall(r"\b1 to (\d+)\b", text) == [longest]


def test_table_of_alarms_is_that_of_the_runbooks(projects, bake):
    found = {}
    with_redis = {f"{name} redis": bake(**answers, results="redis") for name, answers in BROKERS.items()}
    for broker, project in {**projects, **with_redis}.items():
        runbook = (project / "docs" / "runbook.md").read_text(encoding="utf-8")
        for section in re.findall(r"^## (.*)$", runbook, re.MULTILINE):
            found.setdefault(section, set()).add(broker.split()[0])
    shown = {}
    for link, _, broker in rows(text_of("operations.md"), "alarm"):
        name, target = re.fullmatch(r"\[(.*)\]\((.*)\)", link).groups()
        assert unquote(target) == f"../{PROJECT.name}/docs/runbook.md#{name.lower().replace(' ', '-')}"
        shown[name] = {"SQS", "RabbitMQ"} if broker == "both" else {broker}
    assert shown == found


# Words


SOURCES = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in (PROJECT, TEMPLATE / "hooks")
    for path in sorted(folder.rglob("*"))
    if path.is_file()
    and path.suffix in (".py", ".tf", ".json", ".sh", ".tfvars", ".mk", "")
    and "__pycache__" not in str(path)
)


@pytest.mark.parametrize(
    "page", ["questions", "timeouts", "delivery", "fifo", "costs", "operations", "troubleshooting", "updating"]
)
def test_names_in_pages_are_those_of_the_code(page):
    spans = code_in_sentences(text_of(f"{page}.md"))
    names = {
        span.rstrip("()") for span in spans if re.fullmatch(r"[a-z]+(_[a-z]+)+(\(\))?|\w+Error|D\d{3}|[A-Z_]+", span)
    }
    known = SOURCES + (TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8")
    # Of git, cookiecutter, Celery and RabbitMQ.
    foreign = {"UU", "default_context", "rate_limit", "worker_max_memory_per_child", "ACCESS_REFUSED"}
    # Of Terraform in projects from before the chassis.
    foreign |= {"broker_instance_type", "broker_deployment_mode", "broker_engine_version"}
    foreign |= {"redis_node_type", "redis_nodes"}
    assert {name for name in names - foreign if not re.search(rf"\b{name}\b", known)} == set()


def test_messages_in_troubleshooting_are_those_of_the_code():
    quoted = re.findall(r'"([^"\n]+)"', text_of("troubleshooting.md"))
    assert len(quoted) >= 6
    alarms = {cells[0].strip("[").partition("]")[0] for cells in rows(text_of("operations.md"), "alarm")}
    given_up = {f"cannot {what}" for what in re.findall(r'give_up\(f?"([^"{]+?) *(?:\{|")', SOURCES)}
    assert "cannot consume queue" in given_up
    assert [words for words in quoted if words not in SOURCES and words not in alarms | given_up] == []


def test_every_message_has_a_way_to_an_end():
    (diagram,) = blocks(text_of("delivery.md"), "mermaid")
    kind, *lines = diagram.splitlines()
    assert kind == "stateDiagram-v2"
    ways = [re.fullmatch(r"  (\[\*\]|[a-z_]+) --> (\[\*\]|[a-z_]+)(: [\w ,]+)?", line) for line in lines]
    assert all(ways)
    edges = [(way[1], "end" if way[2] == "[*]" else way[2]) for way in ways]

    def reached(start, edges):
        found = {start}
        while more := {end for begin, end in edges if begin in found} - found:
            found |= more
        return found

    states = {state for edge in edges for state in edge}
    assert reached("[*]", edges) == states
    assert reached("end", [(end, begin) for begin, end in edges]) == states


ANSWERS = {
    "Why does this exist?": "README.md",
    "Will it lose my tasks?": "docs/delivery.md#what-can-still-be-lost",
    "What does it cost?": "docs/costs.md",
    "How do I change X?": "docs/operations.md#changing-something",
    "What when an alarm fires?": "docs/operations.md#when-an-alarm-fires",
    "Which numbers, and why these?": "docs/timeouts.md",
    "What about order?": "docs/fifo.md#what-holds-up-a-group-and-what-breaks-its-order",
    "How do updates come in?": "docs/updating.md",
    "Why not Y?": "docs/decisions.md",
    "Something is not as I expect": "docs/troubleshooting.md",
}
"""A stranger's questions, and where their answers begin."""


def two_clicks_away():
    """Return the pages that README leads to, and those that these lead to."""
    reached = {TEMPLATE / "README.md"}
    for _ in range(2):
        for page in list(reached):
            links = re.findall(r"\]\(([^)#\s:]+\.md)", page.read_text(encoding="utf-8"))
            reached |= {(page.parent / unquote(link)).resolve() for link in links}
    return reached


def test_every_page_is_two_clicks_away():
    assert [page.name for page in PAGES if page not in two_clicks_away()] == []


@pytest.mark.parametrize(("question", "place"), ANSWERS.items())
def test_answers_are_two_clicks_away(question, place):
    page, _, anchor = place.partition("#")
    assert TEMPLATE / page in two_clicks_away(), question
    assert not anchor or anchor in anchors(TEMPLATE / page)


# Pictures


def test_timeouts_are_drawn_as_they_are_now(contracts):
    drawn = pictures["timeouts"](contracts["SQS standard"], contracts["RabbitMQ"])
    assert drawn == text_of("timeouts.svg"), "make pictures"


def test_timeouts_are_drawn_to_scale(contracts):
    scales = [*pictures["sqs_scales"](contracts["SQS standard"]), *pictures["rabbitmq_scales"](contracts["RabbitMQ"])]
    assert len(scales) == 5
    for scale in scales:
        drawn, _ = pictures["draw_scale"](scale, 0)
        bars = [ElementTree.fromstring(line) for line in drawn if line.startswith("<rect")]
        for one, bar in zip(scale.bars, bars, strict=True):
            pixels = (one.ends - one.begins) / scale.seconds * pictures["PLOT"]
            assert float(bar.get("width")) == pytest.approx(pixels, abs=0.1)
            assert float(bar.get("x")) + float(bar.get("width")) <= pictures["WIDTH"] - pictures["MARGIN"] + 0.1


@pytest.mark.parametrize("picture", sorted(DOCS.glob("*.svg")), ids=lambda path: path.name)
def test_pictures_load_nothing_and_say_what_they_are(picture):
    text = picture.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert len(text) < 20_000
    assert not re.search(r"url\((?!#)|@import|href|<script|<image|<foreignObject", text)
    assert [element for element in root.iter() if element.tag.endswith("}text") and (element.text or "").strip()]
    pages = "".join(page.read_text(encoding="utf-8") for page in (*PAGES, TEMPLATE / "README.md"))
    texts = re.findall(rf"!\[([^]]+)\]\((?:docs/)?{picture.name}\)", pages)
    assert texts
    assert all(len(text) > 40 for text in texts)


def test_timeouts_can_be_read_on_every_background():
    """A card of its own, and ink that has 4.5 times its contrast, as WCAG wants of text."""

    def light(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    card = light(pictures["CARD"])
    for colour in (pictures["INK"], pictures["FAINT"], *pictures["COLOURS"].values()):
        assert (card + 0.05) / (light(colour) + 0.05) >= 4.5, colour
    assert f'fill="{pictures["CARD"]}"' in text_of("timeouts.svg")
