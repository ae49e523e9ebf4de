"""The parameters of a task as text, and what does not fit them."""

from __future__ import annotations

import decimal
import functools
import inspect
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import pytest
from celery import Celery

from library.support import CONTRACT, module

if TYPE_CHECKING:
    from somewhere import Unknown

signatures = module("signatures")
errors = module("errors")
modules = module("dev.client.modules")
app = Celery("tests", set_as_current=False)


def task_of(function: Any, **options: Any) -> Any:
    return app.task(name=f"{function.__name__}-{len(app.tasks)}", shared=False, lazy=False, **options)(function)


def plain(text: str, count: int = 3, *rest: float, loud: bool = False, **more: Any) -> str | None:
    """A task."""


def nested(a: dict[str, list[int]], b: Sequence[str] | None = None, *, c: Literal["a", 1] = "a") -> None:
    """A task."""


def foreign(amount: decimal.Decimal, either: int | decimal.Decimal, of: Mapping[str, decimal.Decimal]) -> Unknown:
    """A task."""


def defaults(amount: int = decimal.Decimal(1), limit: float = float("inf"), some=(1, [None]), at: dict = {"a": 1}, /):  # noqa: B006
    """A task."""


def bound(self: Any, text: str) -> tuple[int, ...]:
    """A task."""


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (plain, "(text: str, count: int = 3, *rest: float, loud: bool = False, **more: Any) -> str | None"),
        (
            nested,
            "(a: dict[str, list[int]], b: Sequence[str] | None = None, *, c: Literal['a', 1] = 'a') -> None",
        ),
        (foreign, "(amount: Any, either: Any, of: Mapping[str, Any]) -> Any"),
        (
            defaults,
            "(amount: int = DEFAULT, limit: float = DEFAULT, some: Any = (1, [None]), at: dict[str, Any] = {'a': 1}, /)"
            " -> Any",
        ),
    ],
)
def test_parameters_when_written_then_have_types_of_json(function, text):
    assert signatures.signature_text(task_of(function)) == text


def test_parameters_when_a_task_is_wrapped_then_are_its_functions():
    task = task_of(bound, bind=True, autoretry_for=(OSError,))
    assert signatures.signature_text(task) == "(text: str) -> tuple[int, ...]"


def with_session(function: Any) -> Any:
    """Supply the first argument."""

    @functools.wraps(function)
    def with_one(*args: Any, **kwargs: Any) -> Any:
        return function("session", *args, **kwargs)

    return with_one


def bill(session: str, order: int) -> str:
    """A task."""


def test_parameters_when_a_decorator_supplies_one_then_are_those_it_takes():
    for options in ({}, {"bind": True}, {"autoretry_for": (OSError,)}):
        assert signatures.signature_text(task_of(with_session(bill), **options)) == "(*args: Any, **kwargs: Any) -> str"


def test_parameters_when_a_decorator_states_a_signature_then_are_those():
    decorated = with_session(bill)
    decorated.__signature__ = inspect.signature(lambda order: None)
    assert signatures.signature_text(task_of(decorated)) == "(order: Any) -> Any"


def test_parameters_when_a_task_is_a_coroutine_function_then_are_its_own():
    async def count(self: Any, text: str) -> int:
        return len(text)

    task = task_of(count, bind=True)
    module("coroutines").drive(task)
    assert signatures.signature_text(task) == "(text: str) -> int"


def failed(task: Any, *args: Any, **kwargs: Any) -> Any:
    """Return what becomes of the error of a task."""
    try:
        task(*args, **kwargs)
    except TypeError as error:
        return signatures.as_arguments_error(
            task, SimpleNamespace(args=args, kwargs=kwargs, client_version="1.2.3"), error
        )
    return None


def test_arguments_when_they_do_not_fit_then_client_and_name_are_told():
    error = failed(task_of(plain), "a", 1, text="secret")
    assert isinstance(error, errors.ArgumentsError)
    assert "plain() got multiple values for argument 'text'; sent by client 1.2.3" in str(error)
    assert "secret" not in str(error)


def test_type_error_when_the_arguments_fit_then_is_the_tasks_own():
    def add(first, second):
        return first + second

    @functools.wraps(bound)
    def decorated(text):
        return bound(decimal, text) + 1

    assert type(failed(task_of(add), 1, "a")) is TypeError
    assert type(failed(task_of(decorated), "a")) is TypeError


def test_client_when_built_for_other_parameters_then_is_warned_of_once(caplog):
    task = task_of(plain)
    for version in ("1", "1", "2"):
        signatures.check_client(task, version, "other")
    signatures.check_client(task, "3", signatures.fingerprint(task_of(plain)))
    assert [record.args[0] for record in caplog.records] == ["1", "2"]


def test_client_when_two_tasks_have_a_name_then_is_refused(monkeypatch):
    service = module("service").app()
    queue = service.contract.queues[0].module
    names = [f"{service.contract.package}.tasks.{queue}.{part}.plain" for part in ("one", "other")]
    tasks = [task_of(plain) for _ in names]
    for name, task in zip(names, tasks, strict=True):
        monkeypatch.setattr(type(task), "name", name)
        monkeypatch.setattr(type(task), "__module__", name.rpartition(".")[0])
    monkeypatch.setattr(modules, "_tasks", lambda app: iter(tasks))
    with pytest.raises(module("commands").Failure, match=rf"cannot have {queue}\.plain: .* rename .*\.other\.plain"):
        modules.texts(service, "1")


@pytest.mark.parametrize("prefix", ["", f"{CONTRACT['package']}."], ids=["short", "with the package"])
def test_client_when_a_task_has_its_own_name_then_states_the_queue(monkeypatch, prefix):
    service, task = module("service").app(), task_of(plain)
    queue = service.contract.queues[0]
    monkeypatch.setattr(type(task), "name", f"{prefix}custom")
    monkeypatch.setattr(type(task), "__module__", f"{service.contract.package}.tasks.{queue.module}")
    monkeypatch.setitem(service.tasks, task.name, task)
    monkeypatch.setattr(modules, "_tasks", lambda app: iter([task]))
    (files, _) = modules.texts(service, "1")
    assert f"queue={queue.name!r}" in files[f"{queue.module}.py"]
