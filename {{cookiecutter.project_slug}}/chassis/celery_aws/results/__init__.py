"""The result backends: a module for each, of which a service has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from pydantic_settings import BaseSettings

from .. import options
from ..contract import Contract


class Results(Protocol):
    """What the rest of the library needs of a result backend; each one's module has it."""

    BACKENDS: dict[str, str]
    """The backend's class, by the scheme of its URL."""

    @property
    def Variables(self) -> type[BaseSettings]:  # noqa: N802 - a class
        """The environment variables that lead to this environment's results."""

    def celery_settings(self, contract: Contract, variables: Any) -> Mapping[str, Any]:
        """Return Celery's settings of the result backend."""


def chosen(contract: Contract) -> Results:
    """Return the result backend that a contract names."""
    return cast(Results, options.load(__name__, contract.results))
