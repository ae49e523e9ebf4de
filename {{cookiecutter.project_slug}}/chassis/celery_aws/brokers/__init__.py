"""The brokers, one package each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from pydantic_settings import BaseSettings

from .. import options
from ..contract import Contract


class Broker(Protocol):
    """The interface of a broker's package."""

    CONTROL: str
    """Import path of the class for Celery's remote control."""
    TRANSPORT: str
    """Import path of kombu's transport class."""

    @property
    def Variables(self) -> type[BaseSettings]:  # noqa: N802 - a class
        """The environment variables of the broker."""

    def celery_settings(self, contract: Contract, variables: Any, environment: str) -> Mapping[str, Any]:
        """Return Celery's settings for the broker and the queues."""

    def steps(self) -> tuple[type[Any], ...]:
        """Return the bootsteps to add to a worker's consumer."""

    def is_unavailable(self, error: Exception) -> bool:
        """Return whether a failed send may succeed later: the broker, network or credentials are unavailable."""

    def longest_delay_seconds(self, contract: Contract) -> int:
        """Return the longest delay in seconds that the broker itself supports, regardless of the contract."""

    def message_properties(
        self, contract: Contract, task: str, task_id: str, attempt: str, group: str | None, delay_seconds: float
    ) -> Mapping[str, Any]:
        """Return the broker's own properties of a message.

        Args:
            contract: the contract of the service.
            task: name of the task.
            task_id: id of the task, the same for every retry.
            attempt: distinguishes retries of the same task.
            group: message group.
            delay_seconds: delay of the message.

        Raises:
            MessageGroupMissingError: the queue requires a group.
        """


def chosen(contract: Contract) -> Broker:
    """Return the package of the contract's broker."""
    return cast(Broker, options.load(__name__, contract.broker))
