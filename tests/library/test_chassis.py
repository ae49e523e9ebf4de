"""The wall between the service and its chassis: who imports what, and whether anybody has changed the chassis."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter

import celery_aws
from celery_aws import version
from library.support import CHASSIS as CHASSIS_FOLDER
from library.support import CONTRACT, PROJECT

SERVICE = sorted((PROJECT / "src").rglob("*.py"))
CHASSIS = sorted((CHASSIS_FOLDER).rglob("*.py"))


def imports(path):
    """Yield every name that a module imports, with the module it is from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.module, alias.name) for alias in node.names)


def test_service_uses_public_names_of_the_chassis_only():
    beyond = [
        f"{path.relative_to(PROJECT)}: {module} {name}".strip()
        for path in SERVICE
        for module, name in imports(path)
        if module.split(".")[0] == "celery_aws"
        and not ((module == "celery_aws" and name in ("", *celery_aws.__all__)) or module == "celery_aws.errors")
    ]
    assert beyond == [], "chassis/README.md lists what a service may use"
    used = {
        node.attr
        for path in SERVICE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "celery_aws"
    }
    assert used <= set(celery_aws.__all__)


def test_chassis_knows_nothing_of_the_service():
    packages = {CONTRACT["package"], "tests", "src"}
    assert [
        f"{path.relative_to(CHASSIS_FOLDER)}: {module}"
        for path in CHASSIS
        for module, _ in imports(path)
        if module.split(".")[0] in packages
    ] == []


def siblings(path):
    """Yield the modules of the library that one of them imports, by their paths."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            home = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for found in (*(home / alias.name for alias in node.names), home):
                yield from (place for place in (found.with_suffix(".py"), found / "__init__.py") if place.exists())


def test_modules_of_the_library_do_not_import_each_other_in_circles():
    # What a package makes of its parts is no import by these.
    modules = [path for path in CHASSIS if path.name != "__init__.py" or path.parent.name == "contract"]
    graph = {path: {other for other in siblings(path) if other in modules} for path in modules}
    TopologicalSorter({path: others - {path} for path, others in graph.items()}).prepare()
    assert sum(map(len, graph.values())) > 100


FLOORS = (
    # What people see.
    {"__init__", "cli", "terminal", "charts", "console"},
    # What operators can do; it prints nothing.
    {"dlq", "queues", "pausing", "doctor", "cost", "cloudwatch", "attempts"},
    # The Celery application, and producers.
    {
        "aio",
        "app",
        "remote",
        "outbox",
        "sending",
        "checks",
        "configuration",
        "django",
        "task",
        "worker",
        "schedules",
        "beat",
    },
    # Delivery.
    {
        "brokers",
        "results",
        "credentials",
        "compute",
        "consumer",
        "coroutines",
        "delivery",
        "consuming",
        "revoking",
        "storing",
        "pool",
        "liveness",
        "environment",
    },
    # The ground.
    {"options", "service", "settings", "contract", "errors", "commands", "logs", "failures", "headers", "backoff"}
    | {"health", "aws", "durations", "version", "log_fields", "signatures", "tracing", "spans", "strays"},
)
"""Modules and packages of the library, top to bottom; `dev` and `testing` stand beside them and use all of it."""

LAZY = {("service", "sending")}
"""Imported for types alone: the service's application."""


def test_imports_of_the_library_run_downwards_only():
    library = CHASSIS_FOLDER / "celery_aws"
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    upwards = set()
    for path in library.rglob("*.py"):
        own = path.relative_to(library).with_suffix("").parts[0]
        if own in ("dev", "testing"):
            continue
        for other in siblings(path):
            name = other.relative_to(library).with_suffix("").parts[0]
            if name != own and name != "__init__" and floor[name] < floor[own]:
                upwards.add((own, name))
    assert upwards - LAZY == set()
    assert {path.stem for path in library.iterdir() if path.name != "__pycache__"} - {"dev", "testing"} == set(floor)


def test_public_names_are_there_and_described():
    page = (CHASSIS_FOLDER / "README.md").read_text(encoding="utf-8")
    for name in celery_aws.__all__:
        assert getattr(celery_aws, name)
        assert f"`{name}" in page


def test_version_is_that_of_the_changelog():
    page = (CHASSIS_FOLDER / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {celery_aws.__version__}\n" in page


def test_files_that_differ_from_the_version_are_named(tmp_path):
    (tmp_path / "contract.json").write_text('{"results": "s3"}')
    tmp_path = tmp_path / "chassis"
    (tmp_path / "results").mkdir(parents=True)
    for name in ("s3", "redis"):
        (tmp_path / "results" / f"{name}.py").write_text(name)
    (tmp_path / "kept").write_text("1")
    (tmp_path / "patched").write_text("1")
    (tmp_path / "gone").write_text("1")
    version.write(tmp_path)
    assert list(version.differences(tmp_path)) == []
    (tmp_path / "patched").write_text("2")
    (tmp_path / "gone").unlink()
    (tmp_path / "results" / "redis.py").unlink()  # Of an option that was not chosen.
    (tmp_path / "new").write_text("1")
    (tmp_path / ".terraform").mkdir()
    (tmp_path / ".terraform" / "provider").write_text("1")
    assert list(version.differences(tmp_path)) == ["removed: gone", "added: new", "changed: patched"]
