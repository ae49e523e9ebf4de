"""The result backends, one module each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from pydantic_settings import BaseSettings

from .. import options
from ..contract import Contract


class Results(Protocol):
    """The interface of a result backend's module."""

    BACKENDS: dict[str, str]
    """The backend class, by URL scheme."""

    @property
    def Variables(self) -> type[BaseSettings]:  # noqa: N802 - a class
        """The environment variables of the result backend."""

    def celery_settings(self, contract: Contract, variables: Any) -> Mapping[str, Any]:
        """Return Celery's settings for the result backend."""


def chosen(contract: Contract) -> Results:
    """Return the module of the contract's result backend."""
    return cast(Results, options.load(__name__, contract.results))
