"""Every way in: cookiecutter's options, cruft, pytest-cookies, make new and make demo."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from conftest import BIN, QUESTIONS, RULES, TEMPLATE, git, need, tree


def results_of(project):
    """Return the names of the result backends that a project has."""
    found = (project / "chassis" / "celery_aws" / "results").glob("[a-z]*.py")
    return sorted(path.stem for path in found)


def contract_of(folder):
    return json.loads((folder / "contract.json").read_text(encoding="utf-8"))


def test_a_replay_file_bakes_the_same_project_again(cookiecutter_command):
    first = cookiecutter_command(TEMPLATE, "--no-input", "project_name=Mail Room", "results=redis")
    assert first.returncode == 0, first.stdout
    (replay,) = (cookiecutter_command.home / ".cookiecutter_replay").iterdir()
    again = cookiecutter_command(TEMPLATE, "--replay-file", replay, "--output-dir", "again")
    assert again.returncode == 0, again.stdout
    here = cookiecutter_command.here
    assert tree(here / "again" / "mail-room") == tree(here / "mail-room")


def test_a_user_configuration_changes_defaults(cookiecutter_command):
    (cookiecutter_command.home / ".cookiecutterrc").write_text("default_context:\n  region: us-east-2\n")
    assert cookiecutter_command(TEMPLATE, "--no-input").returncode == 0
    assert contract_of(cookiecutter_command.here / "acme-jobs")["region"] == "us-east-2"


def test_the_report_names_queues_and_what_follows(cookiecutter_command):
    run = cookiecutter_command(TEMPLATE, "--no-input", "broker=sqs-fifo", "queues=mail", "max_receive_count=2")
    for part in (
        "acme-jobs-production-mail.fifo\n",
        "acme-jobs-production-mail-dlq.fifo\n",
        "dead-lettered 10 seconds after its first failure, or sooner",  # two deliveries, one pause
        "costs 129,277 SQS requests",
        "Recommended: max_receive_count should be 3 or more",
        "Recommended: alarm_email should be an address",
        "NAT gateway, which costs about $36 a month",
        "  cd acme-jobs\n",
    ):
        assert part in run.stdout


def test_report_when_a_worker_serves_several_queues_then_names_them(cookiecutter_command):
    run = cookiecutter_command(TEMPLATE, "--no-input", "queues=high+default, low")
    assert "The worker high serves high, default, most urgent first.\n" in run.stdout
    assert "worker low" not in run.stdout


def test_the_report_leads_into_the_project_wherever_it_is(cookiecutter_command, tmp_path):
    elsewhere = tmp_path / "with a space"
    run = cookiecutter_command(TEMPLATE, "--no-input", "--output-dir", elsewhere)
    (way,) = re.findall(r"^  (cd .*)$", run.stdout, re.MULTILINE)
    assert subprocess.check_output(["sh", "-c", f"{way} && pwd"], text=True) == f"{elsewhere / 'acme-jobs'}\n"


@pytest.mark.parametrize("answer", [f"{name}={option}" for name in ("broker", "results") for option in QUESTIONS[name]])
def test_cookiecutter_is_all_that_baking_needs(cookiecutter_command, tmp_path, answer):
    absent = tmp_path / "absent"
    absent.mkdir()
    for module in ("boto3", "botocore", "celery", "flask", "kombu", "moto", "pydantic", "pydantic_settings"):
        (absent / f"{module}.py").write_text("raise ModuleNotFoundError(__name__)\n")
    baked = cookiecutter_command(TEMPLATE, "--no-input", answer, env={"PYTHONPATH": str(absent)})
    assert baked.returncode == 0, baked.stderr


def test_overwriting_keeps_task_modules_and_strangers(cookiecutter_command):
    assert cookiecutter_command(TEMPLATE, "--no-input").returncode == 0
    project = cookiecutter_command.here / "acme-jobs"
    tasks = project / "src" / "acme_jobs" / "tasks" / "high.py"
    tasks.write_text("# mine\n")
    strangers = [project / ".venv" / "lib" / "x.redis.py", project / "notes" / "y.none.md"]
    for stranger in strangers:
        stranger.parent.mkdir(parents=True)
        stranger.write_text("not yours")
    run = cookiecutter_command(TEMPLATE, "--no-input", "--overwrite-if-exists", "results=dynamodb")
    assert run.returncode == 0, run.stdout
    assert contract_of(project)["results"] == "dynamodb"
    assert results_of(project) == ["dynamodb"]
    assert tasks.read_text() == "# mine\n"
    assert all(stranger.read_text() == "not yours" for stranger in strangers)


def test_console_when_it_lacks_a_character_then_is_no_reason_to_end(cookiecutter_command):
    environment = {"PYTHONIOENCODING": "cp1252"}
    baked = cookiecutter_command(TEMPLATE, "--no-input", "project_name=漢字", "project_slug=odd", env=environment)
    assert (baked.returncode, "?? is ready" in baked.stdout) == (0, True), baked.stderr
    assert contract_of(cookiecutter_command.here / "odd")["project_name"] == "漢字"
    wrong = cookiecutter_command(TEMPLATE, "--no-input", "project_name=漢字", "project_slug=Odd!", env=environment)
    assert (wrong.returncode, "project_slug must be lower-case letters" in wrong.stdout) == (1, True), wrong.stderr


def test_clone_for_windows_has_the_line_ends_of_the_template(repository, tmp_path):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--config", "core.autocrlf=true", str(repository), str(clone))
    assert (clone / "{{cookiecutter.project_slug}}" / ".gitattributes").exists()
    texts = {
        name: content for name, content in tree(clone).items() if not name.startswith(".git/") and name[-4:] != ".png"
    }
    assert [name for name, content in texts.items() if b"\r\n" in content] == []


def test_pytest_cookies(cookies):
    baked = cookies.bake(extra_context={"project_name": "From a Test", "hard_limit_seconds": 500})
    assert (baked.exit_code, baked.exception) == (0, None)
    assert contract_of(baked.project_path)["queue_defaults"]["hard_limit_seconds"] == 500
    refused = cookies.bake(extra_context={"hard_limit_seconds": 1})
    assert refused.exit_code == -1
    assert "hard_limit_seconds must be greater than soft_limit_seconds (240)" in str(refused.exception)


def test_cruft_creates_checks_and_refuses(run, repository):
    cruft = (sys.executable, "-m", "cruft")
    created = run(*cruft, "create", str(repository), "--no-input", "--extra-context", '{"results": "dynamodb"}')
    assert created.returncode == 0, created.stderr
    project = run.here / "acme-jobs"
    assert contract_of(project)["results"] == "dynamodb"
    assert results_of(project) == ["dynamodb"]
    answers = json.loads((project / ".cruft.json").read_text())["context"]["cookiecutter"]
    assert {name for name in QUESTIONS if name[0] != "_"} <= answers.keys()
    for command in ("check", "diff"):
        result = run(*cruft, command, cwd=project)
        assert result.returncode == 0, result.stdout + result.stderr

    wrong = '{"project_slug": "other", "max_receive_count": "0"}'
    refused = run(*cruft, "create", str(repository), "--no-input", "--extra-context", wrong)
    assert refused.returncode == 1
    assert "max_receive_count must be between 1 and 1000" in refused.stderr.split("nothing was written")[1]
    assert [path.name for path in run.here.iterdir()] == ["acme-jobs"]


def test_cruft_link_when_the_project_is_of_cookiecutter_then_records_the_same(run, repository):
    linked = run.here / "linked"
    linked.mkdir()
    assert run(sys.executable, "-m", "cookiecutter", str(repository), "--no-input", cwd=linked).returncode == 0
    created = created_by_cruft(run, repository)
    recorded = json.loads((created / ".cruft.json").read_text())
    link = ("link", str(repository), "--no-input", "--checkout", recorded["commit"])
    result = run(sys.executable, "-m", "cruft", *link, cwd=linked / "acme-jobs")
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((linked / "acme-jobs" / ".cruft.json").read_text())["commit"] == recorded["commit"]


def created_by_cruft(run, template):
    """Create a project from a template, and commit it as `cruft update` wants it."""
    assert run(sys.executable, "-m", "cruft", "create", str(template), "--no-input").returncode == 0
    project = run.here / "acme-jobs"
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "baked")
    return project


def test_cruft_update_with_filters_that_the_old_version_did_not_have(run, repository, tmp_path):
    """Both versions are rendered in one process; the second must not meet the filters of the first."""
    old = shutil.copytree(repository, tmp_path / "old")
    project = created_by_cruft(run, old)

    answers = old / "hooks" / "answers.py"
    answers.write_text(answers.read_text().replace('    "plan": plan,', '    "plan": plan,\n    "shout": str.upper,'))
    readme = old / "{{cookiecutter.project_slug}}" / "README.md"
    readme.write_text(readme.read_text() + "\n{{ cookiecutter.region | shout }}\n")
    git(old, "commit", "--all", "--quiet", "--message", "a new filter")
    updated = run(sys.executable, "-m", "cruft", "update", "--skip-apply-ask", cwd=project)
    assert updated.returncode == 0, updated.stdout + updated.stderr
    assert (project / "README.md").read_text().endswith("\nEU-WEST-1\n")


def test_cruft_update_applies_the_rules_of_the_new_version(run, repository, tmp_path):
    old = shutil.copytree(repository, tmp_path / "old")
    project = created_by_cruft(run, old)
    before = tree(project)

    rules = old / "{{cookiecutter.project_slug}}" / "chassis" / "celery_aws" / "contract" / "rules.py"
    rules.write_text(
        rules.read_text().replace('_between("max_receive_count", 1, ', '_between("max_receive_count", 6, ')
    )
    git(old, "commit", "--all", "--quiet", "--message", "a stricter rule")
    updated = run(sys.executable, "-m", "cruft", "update", "--skip-apply-ask", cwd=project)
    assert updated.returncode == 1
    assert "max_receive_count must be between 6 and 1000" in updated.stderr
    assert {name: text for name, text in tree(project).items() if not name.startswith(".git/")} == {
        name: text for name, text in before.items() if not name.startswith(".git/")
    }
    mended = ("--variables-to-update", '{"max_receive_count": "6"}')
    updated = run(sys.executable, "-m", "cruft", "update", "--skip-apply-ask", *mended, cwd=project)
    assert updated.returncode == 0, updated.stdout + updated.stderr
    assert contract_of(project)["queue_defaults"]["max_receive_count"] == 6


def page_steps():
    """Return what docs/updating.md has people type: to create, update, commit, take another option, and convert.

    What is typed for a project from before the chassis, test_terraform.py does.
    """
    page = (TEMPLATE / "docs" / "updating.md").read_text(encoding="utf-8").partition("\n## Projects from before")[0]
    return re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.fixture
def follow(run, repository, tmp_path):
    """Type what docs/updating.md says; its address leads to a template that a test may change."""
    template = shutil.copytree(repository, tmp_path / "template")
    (run.home / ".gitconfig").write_text("[user]\nname = Nobody\nemail = nobody@example.com\n")
    installed = tmp_path / "bin" / "acme-jobs"
    installed.parent.mkdir()
    installed.write_text(f'#!/bin/sh\nPYTHONPATH=src:chassis exec "{sys.executable}" -m acme_jobs "$@"\n')
    installed.chmod(0o755)
    path = os.pathsep.join((str(BIN), str(installed.parent), os.environ["PATH"]))

    def type_in(step, folder=run.here):
        said = run(
            *("sh", "-c", step.replace("https://github.com/<org>/cookiecutter-celery-aws", str(template))),
            cwd=folder,
            env={"PATH": path},
            input="\n" * 20,
        )
        return said.stdout + said.stderr

    type_in.template = template
    type_in.project = run.here / "acme-jobs"
    return type_in


def change(path, *changes):
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def grow(project):
    """Do what owners do: a queue more, other limits, a line in the README, a task."""
    change(
        project / "contract.json",
        ('{"name": "high"},', '{"name": "high", "hard_limit_seconds": 900, "visibility_timeout_seconds": 1260},'),
        ('{"name": "low"}\n', '{"name": "low"},\n    {"name": "mail-out"}\n'),
        (
            '"queues": ["low"]}\n',
            '"queues": ["low"]},\n    {"name": "mail-out", "queues": ["mail-out"], "concurrency": 2}\n',
        ),
    )
    tasks = project / "src" / "acme_jobs" / "tasks"
    shutil.copy(tasks / "low.py", tasks / "mail_out.py")
    change(project / "README.md", ("> Background jobs", "> Ours: background jobs"))
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "ours")


def test_update_when_the_examples_were_deleted_then_they_stay_so(follow):
    create, update, *_ = page_steps()
    follow(create)
    examples = ("src/acme_jobs/examples.py", "tests/test_examples.py")
    git(follow.project, "rm", "--quiet", *examples)
    git(follow.project, "commit", "--quiet", "--message", "ours")
    inner = follow.template / "{{cookiecutter.project_slug}}"
    package = inner / "src" / "{{cookiecutter.__package}}"
    change(package / "examples.py", ("Count words: a quick task.", "Count words."))
    change(inner / "README.md", ("\n## On call\n", "\n## When it rings\n"))
    git(follow.template, "commit", "--all", "--quiet", "--message", "other examples")
    said = follow(update, follow.project)
    assert "out of date" in said
    assert "When it rings" in (follow.project / "README.md").read_text()
    assert [name for name in examples if (follow.project / name).exists()] == []
    assert not re.search("^(UU|DU|UD) ", said, re.MULTILINE)


def test_update_to_a_template_with_changed_defaults(follow):
    create, update, keep, *_ = page_steps()
    follow(create)
    grow(follow.project)
    inner = follow.template / "{{cookiecutter.project_slug}}"
    change(follow.template / "cookiecutter.json", ('"max_receive_count": "5"', '"max_receive_count": "9"'))
    change(inner / "contract.json", ('"concurrency": 4', '"concurrency": 8'))
    change(inner / "README.md", ("\n## On call\n", "\n## When it rings\n"))
    git(follow.template, "commit", "--all", "--quiet", "--message", "other defaults")
    said = follow(update, follow.project)
    assert "out of date" in said
    assert "\n-> Ours: background jobs" in said
    assert "UU " not in said
    assert "mail-out: a task that always fails" in said
    contract = RULES.read(follow.project / "contract.json")
    high, own = contract.queue("high"), contract.queue("mail-out")
    assert (high.hard_limit_seconds, own.hard_limit_seconds) == (900, 300)
    assert (high.max_receive_count, own.max_receive_count) == (5, 5)
    assert (contract.worker_of(high).concurrency, contract.worker_of(own).concurrency) == (8, 2)
    readme = (follow.project / "README.md").read_text()
    assert "## When it rings" in readme
    assert "> Ours: background jobs" in readme
    follow(keep, follow.project)
    assert "up to date" in follow("git status --short; cruft check", follow.project)


def test_update_without_cruft_then_merges_as_cruft_does(follow):
    create, *_ = page_steps()
    page = (TEMPLATE / "docs" / "updating.md").read_text(encoding="utf-8")
    (update,) = re.findall(r"^```sh\n(.*?)^```$", page.partition("\n## Without cruft\n")[2], re.MULTILINE | re.DOTALL)
    follow(create)
    grow(follow.project)
    change(follow.project / "Dockerfile", ("python:3.13-slim AS dependencies", "python:3.14-slim AS dependencies"))
    git(follow.project, "rm", "--quiet", "tests/test_examples.py")
    git(follow.project, "commit", "--all", "--quiet", "--message", "ours")
    inner = follow.template / "{{cookiecutter.project_slug}}"
    change(follow.template / "cookiecutter.json", ('"max_receive_count": "5"', '"max_receive_count": "9"'))
    change(inner / "contract.json", ('"concurrency": 4', '"concurrency": 8'))
    change(inner / "Dockerfile", ("python:3.13-slim AS dependencies", "python:3.15-slim AS dependencies"))
    (inner / "chassis" / "celery_aws" / "new.py").touch()
    (inner / "chassis" / "celery_aws" / "durations.py").unlink()
    git(follow.template, "add", "--all")
    git(follow.template, "commit", "--quiet", "--message", "newer")
    # cookiecutter takes a folder as it stands, whatever version it is asked for.
    update = update.replace("https://github.com/<org>/cookiecutter-celery-aws", f"git+file://{follow.template}")
    said = follow(update, follow.project)
    assert re.findall(r"^[ADU]{2} .*", said, re.MULTILINE) == ["UU Dockerfile"], said
    contract = contract_of(follow.project)
    assert contract["worker_defaults"]["concurrency"] == 8
    assert contract["queue_defaults"]["max_receive_count"] == 5
    assert "mail-out" in str(contract["queues"])
    source = follow.project / "chassis" / "celery_aws"
    assert (source / "new.py").exists()
    assert not (source / "durations.py").exists()
    assert not (follow.project / "tests" / "test_examples.py").exists()


def test_update_to_a_template_with_a_new_option_and_a_new_key(follow):
    create, update, keep, other_option, _ = page_steps()
    follow(create)
    grow(follow.project)
    inner = follow.template / "{{cookiecutter.project_slug}}"
    source = inner / "chassis" / "celery_aws"
    change(
        follow.template / "cookiecutter.json",
        ('  "alarm_email": "",', '  "alarm_email": "",\n  "cache": ["local", "shared"],'),
    )
    change(
        inner / "contract.json",
        ('  "queue_defaults": {', '  "cache": {{ cookiecutter.cache | quoted }},\n  "queue_defaults": {'),
        ('    "seconds_per_task": 5', '    "cached_seconds": 60,\n    "seconds_per_task": 5'),
    )
    change(
        source / "contract" / "model.py",
        ('        "compute": (', '        "cache": ("local", "shared"),\n        "compute": ('),
        ("    queues: tuple[Queue, ...]", "    cache: str\n    queues: tuple[Queue, ...]"),
        ("    seconds_per_task: float", "    cached_seconds: int\n    seconds_per_task: float"),
    )
    for option in ("local", "shared"):
        (source / "cache").mkdir(exist_ok=True)
        (source / "cache" / f"{option}.py").write_text(f'"""The {option} one."""\n')
    git(follow.template, "add", "--all")
    git(follow.template, "commit", "--quiet", "--message", "a new option")

    said = follow(update, follow.project)
    assert "mail-out: a task that always fails" in said
    contract = contract_of(follow.project)
    assert (contract["cache"], contract["queue_defaults"]["cached_seconds"]) == ("local", 60)
    cache = follow.project / "chassis" / "celery_aws" / "cache"
    assert [path.name for path in cache.iterdir()] == ["local.py"]
    change(follow.project / "contract.json", ('{"name": "mail-out"}', '{"name": "mail-out", "cached_seconds": 30}'))
    contract["queues"][-1]["cached_seconds"] = 30
    follow(keep, follow.project)

    said = follow(other_option.replace('"results": "dynamodb"', '"cache": "shared"'), follow.project)
    assert "mail-out: a task that always fails" in said
    assert contract_of(follow.project) == {**contract, "cache": "shared"}
    assert [path.name for path in cache.iterdir()] == ["shared.py"]
    follow(keep, follow.project)

    said = follow(other_option, follow.project)
    assert "mail-out: a task that always fails" in said
    assert contract_of(follow.project) == {**contract, "cache": "shared", "results": "dynamodb"}
    assert results_of(follow.project) == ["dynamodb"]


def test_update_when_the_owner_changed_all_of_theirs_then_the_chassis_is_replaced_without_a_conflict(follow):
    create, update, *_ = page_steps()
    follow(create)
    project = follow.project
    theirs = [name for name in tree(project) if not name.startswith((".git/", "chassis/")) and name != ".cruft.json"]
    for name in theirs:  # In front and at the end, whatever that makes of it.
        (project / name).write_bytes(b"# ours\n" + (project / name).read_bytes() + b"# ours\n")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "ours")
    ours = {name: content for name, content in tree(project).items() if name in theirs}

    chassis = follow.template / "{{cookiecutter.project_slug}}" / "chassis"
    for path in (chassis / name for name in tree(chassis) if name.endswith((".py", ".tf", ".md", ".mk"))):
        path.write_text(f"# newer\n{path.read_text(encoding='utf-8')}# newer\n", encoding="utf-8")
    (chassis / "VERSION").write_text("2.1.0\n")
    (chassis / "celery_aws" / "new.py").write_text("")
    (chassis / "CHANGELOG.md").unlink()
    git(follow.template, "add", "--all")
    git(follow.template, "commit", "--quiet", "--message", "a newer chassis")

    said = follow(update, project)
    assert "UU " not in said
    assert "<<<<<<<" not in said
    assert not list(project.rglob("*.rej"))
    after = tree(project)
    assert {name: after.get(name) for name in ours} == ours
    assert after["chassis/VERSION"] == b"2.1.0\n", said
    newer = {f"chassis/{name}" for name in tree(chassis)}
    assert {name for name in after if name.startswith("chassis/")} - {"chassis/SHA256SUMS"} <= newer
    assert all(b"# newer" in after[name] for name in after if name.startswith("chassis/") and name.endswith(".mk"))
    shown = subprocess.run(
        [sys.executable, "-B", "-m", "celery_aws.version"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": "chassis"},
        capture_output=True,
        text=True,
    )
    assert "celery_aws 2.1.0" in shown.stdout, shown.stdout + shown.stderr


def test_update_of_a_line_that_both_changed_is_marked(follow):
    create, update, *_ = page_steps()
    follow(create)
    change(follow.project / "contract.json", ('"concurrency": 4', '"concurrency": 2'))
    git(follow.project, "commit", "--all", "--quiet", "--message", "ours")
    inner = follow.template / "{{cookiecutter.project_slug}}"
    change(inner / "contract.json", ('"concurrency": 4', '"concurrency": 8'))
    git(follow.template, "commit", "--all", "--quiet", "--message", "theirs")
    said = follow(update, follow.project)
    assert "UU contract.json" in said
    assert "contract must be JSON in UTF-8" in said
    text = (follow.project / "contract.json").read_text()
    assert re.search(r'<<<<<<< ours\n +"concurrency": 2,\n=======\n +"concurrency": 8,\n>>>>>>> theirs', text)


OLD_QUEUES = """\
  "queues": [
{%- for queue in cookiecutter.queues | names %}
    {
      "name": {{ queue | quoted }},
      "soft_limit_seconds": {{ cookiecutter.soft_limit_seconds | number }},
      "hard_limit_seconds": {{ cookiecutter.hard_limit_seconds | number }},
      "max_countdown_seconds": {{ cookiecutter.max_countdown_seconds | number }},
      "visibility_timeout_seconds": {{ cookiecutter.visibility_timeout_seconds | number }},
      "heartbeat_seconds": 0,
      "heartbeat_limit_seconds": 43200,
      "retry_backoff_seconds": 10,
      "max_receive_count": {{ cookiecutter.max_receive_count | number }},
      "retention_seconds": 345600,
      "concurrency": 4,
      "workers_min": 1,
      "workers_max": {{ cookiecutter.workers_max | number }},
      "acceptable_latency_seconds": 60,
      "seconds_per_task": 5
    }
{%- if not loop.last %},{% endif %}
{%- endfor %}
  ],
"""
"""The queues in a template whose contract is of version 1."""


@pytest.fixture
def since_version_1(follow):
    """Create a project from a template whose contract is of version 1; return what gives the template its own again."""
    inner = follow.template / "{{cookiecutter.project_slug}}"
    changed = (inner / "contract.json", follow.template / "hooks" / "answers.py", follow.template / "hooks" / HOOK)
    current = {path: path.read_bytes() for path in changed}
    contract, answers, hook = changed
    text = contract.read_text(encoding="utf-8")
    begin, end = text.index('  "queue_defaults"'), text.index('  "dead_letter_retention_seconds"')
    head = text[:begin].replace('  "$schema": "./chassis/contract.schema.json",\n', "")
    contract.write_text(head + OLD_QUEUES + text[end:], encoding="utf-8")
    # The rest is of today, so it has to be told what the contract would be today.
    line = "        contract = json.loads(environment.from_string(source).render(cookiecutter=asked))\n"
    as_today = 'importlib.import_module(f"{load_rules().__name__}.convert").convert(contract)'
    change(answers, (line, f"{line}        contract = {as_today}\n"))
    change(hook, ("    make_copies(Path.cwd())\n", ""))
    git(follow.template, "commit", "--all", "--quiet", "--message", "contract 1")
    create, *_ = page_steps()
    follow(create)
    assert "queue_defaults" not in contract_of(follow.project)

    def renew():
        for path, content in current.items():
            path.write_bytes(content)
        git(follow.template, "commit", "--all", "--quiet", "--message", "contract 2")

    return renew


HOOK = "post_gen_project.py"


def test_update_from_contract_1_when_no_queue_was_changed_then_merges(follow, since_version_1, bake):
    _, update, *_ = page_steps()
    change(follow.project / "contract.json", ('"alarm_email": ""', '"alarm_email": "on-call@example.com"'))
    git(follow.project, "commit", "--all", "--quiet", "--message", "ours")
    since_version_1()
    said = follow(update, follow.project)
    assert "UU " not in said
    assert "low: a task that always fails" in said
    assert contract_of(follow.project) == {**contract_of(bake()), "alarm_email": "on-call@example.com"}


def test_update_from_contract_1_when_queues_were_changed_then_converts(follow, since_version_1):
    _, update, keep, _, convert = page_steps()
    contract = contract_of(follow.project)
    contract["queues"].append({**contract["queues"][0], "name": "mail-out", "concurrency": 2, "workers_max": 3})
    contract["queues"][0].update(hard_limit_seconds=900, visibility_timeout_seconds=1260)
    (follow.project / "contract.json").write_text(json.dumps(contract, indent=2) + "\n", encoding="utf-8")
    tasks = follow.project / "src" / "acme_jobs" / "tasks"
    shutil.copy(tasks / "low.py", tasks / "mail_out.py")
    git(follow.project, "add", "--all")
    git(follow.project, "commit", "--quiet", "--message", "ours")
    since_version_1()
    assert "UU contract.json" in follow(update, follow.project)
    said = follow(convert, follow.project)
    assert "mail-out: a task that always fails" in said, said
    read = RULES.read(follow.project / "contract.json")
    assert [queue.hard_limit_seconds for queue in read.queues] == [900, 300, 300, 300]
    workers = [(worker.name, worker.concurrency, worker.max) for worker in read.workers]
    assert workers == [("high", 4, 10), ("default", 4, 10), ("low", 4, 10), ("mail-out", 2, 3)]
    follow(keep, follow.project)
    assert "up to date" in follow("git status --short; cruft check", follow.project)


def test_make_new_asks_and_writes(run, tmp_path):
    need("make")
    output = tmp_path / "projects"
    # The environment of these tests stands in for the one make would install.
    ready = tmp_path / "venv" / ".ready"
    ready.parent.mkdir()
    ready.touch()
    (tmp_path / "venv" / "bin").symlink_to(BIN)
    made = run(
        *("make", "--old-file=requirements.txt", f"VENV={ready.parent}", f"OUTPUT={output}", "new"),
        cwd=TEMPLATE,
        input="Night Shift\n" + "\n" * 20,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert contract_of(output / "night-shift")["project_name"] == "Night Shift"


def test_demo(run):
    demo = run(sys.executable, str(TEMPLATE / "tools" / "demo.py"), env={"COLUMNS": "80"})
    assert demo.returncode == 0, demo.stdout + demo.stderr
    for part in ("number_pages(20)", "'3 words'", "5 attempts", "4 words", "Everything worked"):
        assert part in demo.stdout
    assert max(map(len, demo.stdout.splitlines())) <= 80
    assert letters(demo.stdout) == letters(pictured(TEMPLATE / "docs" / "demo.svg")), "make pictures"


def pictured(picture):
    """Return what a picture of a terminal has in it, but for its title."""
    texts = ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")
    return "".join(text.text for text in texts if text.get("clip-path"))


def letters(said):
    """Return what was said, without spaces and how long it took."""
    return re.sub(r"\s+", "", re.sub(r"in\s\d+\sseconds", "", said))


def test_demo_fails_with_the_reason_where_failed_tasks_are_deleted(run, repository, tmp_path):
    """What Celery does by default: the demo must notice."""
    broken = shutil.copytree(repository, tmp_path / "broken")
    package = broken / "{{cookiecutter.project_slug}}" / "chassis" / "celery_aws"
    delivery = package / "delivery.py"
    text = delivery.read_text(encoding="utf-8")
    assert text.count("Verdict(Action.DEAD_LETTER, outcome") == 1
    delivery.write_text(text.replace("Verdict(Action.DEAD_LETTER, outcome", "Verdict(Action.DELETE, outcome"), "utf-8")
    demo = broken / "tools" / "demo.py"
    demo.write_text(demo.read_text().replace("PATIENCE_SECONDS = 40", "PATIENCE_SECONDS = 25"))
    failed = run(sys.executable, str(demo), env={"COLUMNS": "200"})
    assert failed.returncode == 1
    assert "The demo failed: a message in acme-jobs-development-high-dlq: not within 25 seconds" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_template_and_projects_pin_the_same_versions():
    def pins(path):
        return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))

    ours = pins(TEMPLATE / "requirements.txt")
    for path in (TEMPLATE / "{{cookiecutter.project_slug}}").glob("requirements*.txt"):
        theirs = pins(path)
        assert theirs, path
        assert {name: version for name, version in theirs.items() if ours.get(name, version) != version} == {}, path
        assert theirs.keys() - ours.keys() <= {"pathspec", "trove-classifiers"}, path


OURS = [path for path in sorted(TEMPLATE.rglob("requirements*.txt")) if ".venv" not in str(path.relative_to(TEMPLATE))]


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_pins_have_hashes_and_name_no_index(path):
    text = path.read_text(encoding="utf-8")
    packages = [line for line in text.splitlines() if "==" in line and line[0] not in " #"]
    assert packages
    assert all(line.endswith("\\") for line in packages)
    assert "://" not in text
    assert "index" not in text
