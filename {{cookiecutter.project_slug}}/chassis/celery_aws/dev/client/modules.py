"""The modules of a client: a function for each task, by its queue."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from ...commands import Failure
from ...signatures import fingerprint, is_json, signature_text

RESERVED = ("aio", "app", "errors", "request_id")
"""Names in the package that are no modules of tasks."""

ATTRIBUTES = ("queue", "priority", "expires", "compression", "ignore_result", "message_group", "deduplication_key")
"""Attributes of a task that concern sending. Time limits do not: workers apply their own."""

IMPORTS = (("collections.abc", ("Mapping", "Sequence")), ("typing", ("Any", "Literal")))

LIBRARY = "_celery_aws"
"""Name of the library within the package."""


def texts(app: Any, version: str) -> tuple[dict[str, str], list[str]]:
    """Return the code of a client.

    Args:
        app: the application of the service, with all tasks.
        version: version of the client.

    Returns:
        The text of each file by its name, and a line for each task that cannot be sent by a client.

    Raises:
        Failure: names of tasks or queues collide.
    """
    modules: dict[str, dict[str, str]] = {}
    left_out = []
    for task in sorted(_tasks(app), key=lambda task: str(task.name)):
        if callable(getattr(task, "deduplication_key", None)):
            left_out.append(f"{task.name}: its deduplication key is a function, whose code a client does not have")
            continue
        module, name = _module(app, task), str(task.__name__)
        functions = modules.setdefault(module, {})
        if module in RESERVED or name in functions:
            raise Failure(f"the client cannot have {module}.{name}: the name is taken; rename {task.name}")
        functions[name] = _function(app, task)
    files = {f"{module}.py": _file(module, functions) for module, functions in modules.items()}
    files["__init__.py"] = _INIT.format(service=app.contract.service, version=version, library=LIBRARY)
    files["_client.py"] = _CLIENT.format(library=LIBRARY, version=version, modules=tuple(sorted(modules)))
    return files, left_out


def _tasks(app: Any) -> Iterator[Any]:
    """Yield the tasks of the service, without those of Celery and of this library."""
    app.loader.import_default_modules()
    yield from (task for name, task in app.tasks.items() if not name.startswith(("celery.", "celery_aws.")))


def _module(app: Any, task: Any) -> str:
    """Return the name of the module of a task: that of its queue's module, or of its own without the package."""
    package = app.contract.package
    within = str(task.__module__).removeprefix(f"{package}.tasks.").removeprefix(f"{package}.")
    return within.partition(".")[0]


def _function(app: Any, task: Any) -> str:
    """Return the code of a task."""
    queue = app.queue_of_task(task.name)
    stated = {name: getattr(task, name, None) for name in ATTRIBUTES}
    if queue is not None and not stated["queue"] and not task.name.startswith(f"{app.contract.package}.tasks."):
        stated["queue"] = queue.name  # A client cannot tell from a task's own name in which module it is.
    group = stated["message_group"]
    kept = {
        name: value for name, value in stated.items() if is_json(value) and value is not None and value is not False
    }
    is_grouped = callable(group) or (group is None and (queue or app.contract.default_queue).fifo)
    arguments = [repr(task.name), repr(fingerprint(task)), *(f"{name}={value!r}" for name, value in kept.items())]
    lines = [
        f"@_client.{'grouped_task' if is_grouped else 'task'}({', '.join(arguments)})",
        f"def {task.__name__}{signature_text(task)}:",
        *_docstring(inspect.getdoc(task.run)),
        "    raise NotImplementedError",
    ]
    return "\n".join(lines)


def _docstring(text: str | None) -> list[str]:
    """Return a docstring as lines of code."""
    if not text:
        return []
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return [f"    {line}".rstrip() for line in f'"""{escaped}"""'.splitlines()]


def _file(module: str, functions: dict[str, str]) -> str:
    """Return the text of a module."""
    code = "\n\n\n".join(functions.values())
    lines = [f'"""Tasks of {module}."""', "", "from __future__ import annotations", ""]
    for source, names in IMPORTS:
        if used := [name for name in names if re.search(rf"\b{name}\b", code)]:
            lines.append(f"from {source} import {', '.join(used)}")
    return "\n".join([*lines, "", "from ._client import DEFAULT, client as _client", "", "", code, ""])


_INIT = '''"""Client of the service {service}, version {version}: its tasks, to be sent to its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._client import client as _client
from .{library} import aio as aio
from .{library} import errors as errors
from .{library}.log_fields import request_id as request_id

if TYPE_CHECKING:
    from .{library}.sending import Service
    from .{library}.settings import ProducerSettings

    app: Service[ProducerSettings]

__version__ = "{version}"


def __getattr__(name: str) -> Any:
    """Build the application, `app`, when it is used for the first time."""
    if name == "app":
        return _client.app
    raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
'''

_CLIENT = '''"""The client that the modules of tasks share."""

from __future__ import annotations

from pathlib import Path

from .{library}.remote import DEFAULT as DEFAULT
from .{library}.remote import Client

client = Client(Path(__file__).parent, __package__, "{version}", {modules})
'''
