"""The brokers: a folder for each, of which a service has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from pydantic_settings import BaseSettings

from .. import options
from ..contract import Contract


class Broker(Protocol):
    """What the rest of the library needs of a broker; each one's package has it."""

    CONTROL: str
    """What Celery's application is to use for remote control."""
    TRANSPORT: str
    """kombu's transport, as Celery names a class."""

    @property
    def Variables(self) -> type[BaseSettings]:  # noqa: N802 - a class
        """The environment variables that lead to this environment's broker."""

    def celery_settings(self, contract: Contract, variables: Any, environment: str) -> Mapping[str, Any]:
        """Return Celery's settings of broker and queues."""

    def steps(self) -> tuple[type[Any], ...]:
        """Return what to add to a worker."""

    def is_unavailable(self, error: Exception) -> bool:
        """Return whether sending may succeed later: broker, network or credentials are unavailable just now."""

    def longest_delay_seconds(self, contract: Contract) -> int:
        """Return for how long the broker itself delays a message, whatever the contract says."""

    def message_properties(
        self, contract: Contract, task: str, task_id: str, attempt: str, group: str | None, delay_seconds: float
    ) -> Mapping[str, Any]:
        """Return what goes with a message beside Celery's own.

        Args:
            contract: of the service.
            task: name of the task.
            task_id: its id, the same on every attempt.
            attempt: what tells this sending from others of the same task.
            group: its message group.
            delay_seconds: how long it is to be delayed.

        Raises:
            MessageGroupMissingError: the queue needs a group, and there is none.
        """


def chosen(contract: Contract) -> Broker:
    """Return the broker that a contract names."""
    return cast(Broker, options.load(__name__, contract.broker))
