"""What a client of a service is made of: typed tasks that run in the service's workers.

`make client` writes a package that contains a copy of this module and of what it imports; see dev/client.
"""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from celery import Signature
from celery.result import AsyncResult

from .app import build
from .contract import read
from .sending import Service
from .settings import ProducerSettings
from .signatures import CLIENT_SIGNATURE, CLIENT_VERSION
from .task import Task

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT: Any = ...
"""The default of a parameter that only the workers know."""


class Client:
    """The client of a service. It reads the environment variables and builds the application on first use."""

    def __init__(self, folder: Path, package: str, version: str, modules: Sequence[str]) -> None:
        """Create the client.

        Args:
            folder: where the contract is.
            package: name of the client's package.
            version: version of the client, which is that of the service.
            modules: names of the package's modules of tasks.
        """
        self._folder, self._package, self._version, self._modules = folder, package, version, modules
        self._declared: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {}
        self._lock = threading.RLock()
        self._app: Service[ProducerSettings] | None = None

    @property
    def app(self) -> Service[ProducerSettings]:
        """The application, for `batching()` and Celery's own functions.

        Raises:
            SettingsError: environment variables are missing or invalid; all of them are listed.
        """
        with self._lock:
            if self._app is None:
                self._app = self._build()
            return self._app

    def _build(self) -> Service[ProducerSettings]:
        contract = read(self._folder / "contract.json")
        app = build(
            contract,
            ProducerSettings,
            prefix=f"{contract.package.upper()}_",
            # The application that uses this client may be one of Celery's itself. It stays the current one, and its
            # tasks, which Celery adds to every application, may have options that this service does not support.
            set_as_current=False,
            task_cls="celery.app.task:Task",
            fixups=(),  # What a worker needs for Django; a client does not contain it.
        )
        app.conf.include = ()  # The service's own modules, if they can be imported, are for its workers.
        for module in self._modules:
            importlib.import_module(f"{self._package}.{module}")
        for name, (function, attributes) in self._declared.items():
            declare: Any = app.task(name=name, base=ClientTask, shared=False, lazy=False, **attributes)
            declare(function)
        return app

    def task(self, name: str, fingerprint: str, **attributes: Any) -> Callable[[Callable[P, R]], RemoteTask[P, R]]:
        """Declare a task, by a function with its parameters.

        Args:
            name: name of the task.
            fingerprint: hash of its parameters in the service; see signatures.py.
            attributes: attributes of the task that concern sending.
        """
        return lambda function: RemoteTask(*self._declare(name, fingerprint, function, attributes))

    def grouped_task(
        self, name: str, fingerprint: str, **attributes: Any
    ) -> Callable[[Callable[P, R]], GroupedTask[P, R]]:
        """Declare a task whose producer has to name the message group; see `task`."""
        return lambda function: GroupedTask(*self._declare(name, fingerprint, function, attributes))

    def _declare(
        self, name: str, fingerprint: str, function: Callable[P, R], attributes: Mapping[str, Any]
    ) -> tuple[Client, str, Callable[P, R]]:
        headers = {CLIENT_VERSION: self._version, CLIENT_SIGNATURE: fingerprint}
        self._declared[name] = function, {**attributes, "client_headers": headers}
        return self, name, function


class ClientTask(Task):
    """A task of the client's application; its messages say which client sent them."""

    client_headers: Mapping[str, str]

    def signature(self, *args: Any, **options: Any) -> Signature[Any]:
        """Return a signature with the client's headers, which it keeps if a worker sends it later."""
        made = super().signature(*args, **options)
        return made.set(headers=self._with_own(made.options.get("headers")))

    def apply_async(self, *args: Any, headers: Any = None, **options: Any) -> AsyncResult[Any]:
        """Send the task with the client's headers."""
        return super().apply_async(*args, headers=self._with_own(headers), **options)

    def _with_own(self, headers: Any) -> dict[str, Any]:
        return {**(headers or {}), **self.client_headers}


class RemoteTask(Generic[P, R]):
    """A task of the service, with its parameters and its return type."""

    def __init__(
        self, client: Client, name: str, function: Callable[P, R], options: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self.__doc__ = function.__doc__
        self._client, self._function, self._options = client, function, options or {}
        self._parameters = inspect.signature(function)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task.

        Returns:
            A handle with the task's id, and its result if the service keeps results.

        Raises:
            RefusedError: the task, or an option, cannot be honoured; nothing was sent.
            SettingsError: environment variables are missing or invalid.
            TypeError: the arguments do not fit the task's parameters; nothing was sent.
        """
        return self.s(*args, **kwargs).apply_async()

    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """Return a signature with all arguments, for groups, chords and the first task of a chain.

        Raises:
            SettingsError: environment variables are missing or invalid.
            TypeError: the arguments do not fit the task's parameters.
        """
        return self._made(args, kwargs, args)

    def partial(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Return a signature whose first argument is the result of the task before it, in a chain or chord.

        Raises:
            SettingsError: environment variables are missing or invalid.
            TypeError: the arguments, with the result before them, do not fit the task's parameters.
        """
        return self._made(args, kwargs, (None, *args))

    def _made(self, args: Any, kwargs: Any, bound: Any) -> Signature[R]:
        try:
            self._parameters.bind(*bound, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        task: Any = self._client.app.tasks[self.name]
        made: Signature[R] = task.signature(args, kwargs)
        return made.set(**self._options)

    def options(
        self,
        *,
        group: str | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        task_id: str | None = None,
    ) -> RemoteTask[P, R]:
        """Return this task with options for sending it.

        Args:
            group: message group, such as the customer that the task is for.
            countdown: delay in seconds.
            eta: earliest time of its start, instead of a countdown.
            expires: seconds or time after which it is not started any more.
            task_id: id of the task; a new one by default.
        """
        chosen = {
            "MessageGroupId": group,
            "countdown": countdown,
            "eta": eta,
            "expires": expires,
            "task_id": task_id,
        }
        options = {**self._options, **{name: value for name, value in chosen.items() if value is not None}}
        return RemoteTask(self._client, self.name, self._function, options)


class GroupedTask(Generic[P, R]):
    """A task that can be sent with a message group only.

    Its queue is FIFO, or its service derives the group from the arguments with code that a client does not have.
    """

    def __init__(self, client: Client, name: str, function: Callable[P, R]) -> None:
        self.name = name
        self.__doc__ = function.__doc__
        self._task = RemoteTask(client, name, function)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def options(
        self,
        *,
        group: str,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        task_id: str | None = None,
    ) -> RemoteTask[P, R]:
        """Return this task with options for sending it; see `RemoteTask.options`."""
        return self._task.options(group=group, countdown=countdown, eta=eta, expires=expires, task_id=task_id)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Say how the task is sent."""
            if name in ("delay", "partial", "s"):
                raise AttributeError(f"{self.name} needs a message group: .options(group='...').{name}(...)")
            raise AttributeError(name)
