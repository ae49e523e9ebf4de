"""How the library finds the service that it runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from library.support import module

service = module("service")
strays = module("strays")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], []),
        (["tasks/__init__.py"], []),
        (["tasks/__init__.py", "tasks/high.py"], ["tasks.high"]),
        (["tasks/__init__.py", "tasks/low/__init__.py", "examples.py"], ["tasks.low", "examples"]),
        (["tasks/high.py", "tasks/low.py", "examples.py"], ["tasks.high", "tasks.low", "examples"]),
    ],
)
def test_task_modules_are_those_that_exist(tmp_path, monkeypatch, files, found):
    package = f"jobs_of_{tmp_path.name}"
    for file in files:
        path = tmp_path / package / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise AssertionError('imported')")
    (tmp_path / package).mkdir(exist_ok=True)
    (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    contract = SimpleNamespace(package=package, queues=[SimpleNamespace(module=name) for name in ("high", "low")])
    assert service.task_modules(contract) == [f"{package}.{name}" for name in found]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("nope.py", "nope.py"),
        ("nope/__init__.py", "nope"),
        ("high.py", ""),
        ("_shared.py", ""),
        ("__init__.py", ""),
        ("notes.txt", ""),
        ("data/table.csv", ""),
    ],
)
def test_module_when_it_belongs_to_no_queue_then_is_stray(tmp_path, file, name):
    path = tmp_path / "tasks" / file
    path.parent.mkdir(parents=True)
    path.touch()
    contract = SimpleNamespace(package="none", queues=[SimpleNamespace(module="high")])
    found = strays.stray_modules(contract, tmp_path)
    assert list(found) == (["nope"] if name else [])
    assert all(line.startswith(f"tasks/{name} belongs to no queue") for line in found.values())


def test_has_module_when_there_is_no_such_package_then_is_false():
    assert not service.has_module("no_such_package_anywhere.tasks")
    assert not service.has_module("this.that")  # A module and no package.
