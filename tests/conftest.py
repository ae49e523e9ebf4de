"""What the tests share: the template's parts, the order of tests, and fixtures that bake."""

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import io
import itertools
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import caches
import pytest
import yaml
from allpairspy import AllPairs
from cookiecutter.main import cookiecutter
from hypothesis import settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

caches.share()

TEMPLATE = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
"""Where the tools of the tests lie."""
PROJECT = TEMPLATE / "{{cookiecutter.project_slug}}"
QUESTIONS = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
RULES = runpy.run_path(str(TEMPLATE / "hooks" / "answers.py"))["load_rules"]()

CHOICES = {name: options for name, options in QUESTIONS.items() if isinstance(options, list) and name[0] != "_"}
PAIRS = [dict(zip(CHOICES, options, strict=True)) for options in AllPairs(list(CHOICES.values()))]
"""As few combinations as hold every two options together."""
COMBINATIONS = [dict(zip(CHOICES, options, strict=True)) for options in itertools.product(*CHOICES.values())]
PARSERS = {
    ".py": ast.parse,
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yml": yaml.safe_load,
    ".yaml": yaml.safe_load,
}
"""What reads a file, by how its name ends."""

# The same examples in every run, so that nobody's change fails for what somebody else wrote; and others on demand.
settings.register_profile("same", deadline=None, database=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("same")


def source_path(project):
    """Return what leads a Python to a project that is not installed."""
    return os.pathsep.join(str(project / folder) for folder in ("src", "chassis"))


def label(answers):
    return "-".join(map(str, answers.values()))


def tree(folder):
    """Return every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def anchors(page):
    """Return what links may name in a page: a heading's words."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def need(command):
    """Skip where a program is missing; in CI, where .ci/run installs it, fail instead."""
    if shutil.which(command):
        return
    if os.environ.get("CI"):
        pytest.fail(f"{command} is missing, and .ci/run should have installed it")
    pytest.skip(f"{command} is not installed on this machine")


def eventually(holds, seconds=120):
    """Wait until something holds, and return it; what it was at last if the time is over."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.2)
    return found


@functools.cache
def rabbitmq_module():
    """Return what the library's module that runs RabbitMQ defines. Nothing is imported from the template."""
    return runpy.run_path(str(PROJECT / "chassis" / "celery_aws" / "dev" / "brokers" / "rabbitmq.py"))


@functools.cache
def _rabbitmq():
    """Start a RabbitMQ for the tests of this process, each of which gets its own virtual host; return its address."""
    module = rabbitmq_module()
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    try:
        return {module["RUNNING"]: stack.enter_context(module["server"]()).address}
    except FileNotFoundError:  # The tests say so.
        return {}


def shared_broker(answers):
    """Return environment variables that lead tests of a service to a server that runs, as a start takes long."""
    return _rabbitmq() if answers.get("broker") == "rabbitmq" else {}


def library_tests(answers, tests, *options, chassis=PROJECT / "chassis", **variables):
    """Run tests of tests/library/ on a service of some answers, and return how that ended.

    Args:
        answers: of the service.
        tests: modules or tests, by their paths below tests/library/.
        options: of pytest.
        chassis: where the library is.
        variables: further environment variables.
    """
    # Not started in there: its folders, such as `redis`, are no libraries.
    paths = [str(TEMPLATE / "tests" / "library" / test) for test in tests]
    baked = _bake(_folder_of_services(), tuple(sorted(answers.items())))
    if rabbitmq_module()["RUNNING"] not in variables:
        variables |= shared_broker(answers)
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *paths],
        cwd=TEMPLATE,
        env={**os.environ, "BAKED": str(baked), "CHASSIS": str(chassis), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate()
        except BaseException:  # Its workers go with it.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


# The order of tests


LONG = (
    "test_library",
    "test_judges",
    "test_projects",
    "test_pipelines",
    "test_terraform",
    "test_mutants",
    "test_machine",
    "test_examples",
    "test_reports",
)
"""Modules of tests that take long."""
WAITING = ("test_library", "test_judge", "test_cluster", "test_mutant_is_caught")
"""Those of them that wait for most of their time, so that others can use the processors beside them."""
WAITERS = 4
"""So many processes begin with those; the Makefile starts as many more than there are processors."""
UNDIVIDED = "test_image"
"""One that does, too, but is one process's, as each would have to build the images."""


def pytest_collection_modifyitems(config, items):
    """Let each process begin with its share of the long tests, so that none waits for another's in the end.

    pytest-xdist hands each an equal run of the list, and what a process has left is taken by whoever is done.
    """
    shares = getattr(config, "workerinput", {}).get("workercount", 1)
    long = sorted((item for item in items if item.path.stem in LONG), key=lambda item: LONG.index(item.path.stem))
    waiting = [item for item in long if item.originalname in WAITING]
    busy = [item for item in long if item.originalname not in WAITING]
    long = []
    while waiting or busy:  # In each round, every process gets one.
        for turn in range(shares):
            first, second = (waiting, busy) if turn < min(WAITERS, shares - 1) else (busy, waiting)
            long += [(first or second).pop(0)] if first or second else []
    undivided = [item for item in items if item.path.stem == UNDIVIDED]
    short = [item for item in items if item.path.stem not in (*LONG, UNDIVIDED)]
    end = [len(short) * share // shares for share in range(shares + 1)]
    spread = [item for n in range(shares) for item in (*long[n::shares], *short[end[n] : end[n + 1]])]
    items[:] = [*undivided, *spread]


# What was left out


LEFT = pytest.StashKey[list]()
"""The modules of tests that were left to `make test-all`."""

collect_ignore = ["library"]
"""Whose tests are for one service at a time: see test_library.py."""


def pytest_deselected(items):
    for item in items:
        item.config.stash.setdefault(LEFT, []).append(item.path.stem)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = session.config.stash.get(LEFT, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    node.config.stash[LEFT] = getattr(node, "workeroutput", {}).get("left", [])


def pytest_terminal_summary(terminalreporter, config):
    left = Counter(config.stash.get(LEFT, []))
    if left and config.option.markexpr == "not slow":
        listed = ", ".join(f"{count} of {module}" for module, count in sorted(left.items()))
        terminalreporter.write_line(f"Left to `make test-all`: {listed}.")


# Fixtures


def git(folder, *arguments):
    """Run git as somebody who may commit, and return what it says."""
    identity = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.com")
    ran = subprocess.run(("git", *identity, *arguments), cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return ran.stdout


@functools.cache
def _bake(folder, frozen):
    output = folder / label(dict(frozen))
    with contextlib.redirect_stdout(io.StringIO()):
        return Path(
            cookiecutter(
                str(TEMPLATE),
                no_input=True,
                default_config=True,
                extra_context=dict(frozen),
                output_dir=str(output),
            )
        )


@functools.cache
def _folder_of_services():
    """Return where the services for the library's tests are baked, once per process and answers."""
    folder = Path(tempfile.mkdtemp(prefix="services-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@pytest.fixture(scope="session")
def bake(tmp_path_factory):
    """Bake answers, once for all who only look at the result."""
    folder = tmp_path_factory.mktemp("baked")
    return lambda **answers: _bake(folder, tuple(answers.items()))


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """Put the template as it stands, committed or not, into a repository of its own."""
    folder = tmp_path_factory.mktemp("repository") / "template"
    listed = git(TEMPLATE, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (TEMPLATE / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TEMPLATE / name, folder / name)
    git(folder, "init", "--quiet", "--initial-branch=main", ".")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "as it stands")
    return folder


@pytest.fixture
def project(bake, tmp_path):
    """Bake a project that may be changed."""
    return lambda **answers: shutil.copytree(bake(**answers), tmp_path / "project")


@pytest.fixture
def run(tmp_path):
    """Run a command of the template's environment in an empty folder, with an empty home."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()

    def run_command(*command, **options):
        folder = options.pop("cwd", here)
        return subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "HOME": str(home), "PWD": str(folder), **options.pop("env", {})},
            capture_output=True,
            text=True,
            timeout=options.pop("timeout", 120),
            **options,
        )

    run_command.here = here
    run_command.home = home
    return run_command


@pytest.fixture
def cookiecutter_command(run):
    """Run `cookiecutter` as a user does, in an empty folder."""

    def command(*arguments, **options):
        return run(sys.executable, "-m", "cookiecutter", *map(str, arguments), **options)

    command.here = run.here
    command.home = run.home
    return command
