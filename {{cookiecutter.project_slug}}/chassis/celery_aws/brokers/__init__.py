"""The brokers, one package each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from pydantic_settings import BaseSettings

from .. import options
from ..contract import Contract, Queue


@dataclass(frozen=True)
class Outgoing:
    """A message that is about to be sent."""

    queue: Queue | None
    """Its queue; None for one that is not in the contract."""
    task: str
    """Name of the task."""
    task_id: str
    """Id of the task, the same for every retry."""
    attempt: str
    """Distinguishes retries of the same task: numbers of retries and of replacements, such as `1:0`."""
    group: str | None = None
    """Message group."""
    deduplication_key: str | None = None
    """The task's own key; the id of the task by default."""
    delay_seconds: float = 0
    is_scheduled: bool = False
    """Whether the delay is longer than the queue allows, so that a one-time schedule sends the message."""


@dataclass(frozen=True)
class Composed:
    """A message as it would be handed to the broker's transport, to measure it."""

    queue: str
    """Name of its queue in Celery."""
    body: str | bytes
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]


SIZE_MARGIN_BYTES = 512
"""What else may be in a message that is sent later, such as the name of the process that sends it."""


class Broker(Protocol):
    """The interface of a broker's package."""

    CONTROL: str
    """Import path of the class for Celery's remote control."""
    COUNTDOWN_LIMIT: str
    """Why countdowns have a limit, and how to raise it; part of an error message."""
    TRANSPORT: str
    """Import path of kombu's transport class."""

    def variables(self, contract: Contract) -> type[BaseSettings]:
        """Return the settings class of the environment variables that the broker needs for a contract."""

    def celery_settings(self, contract: Contract, variables: Any, environment: str) -> Mapping[str, Any]:
        """Return Celery's settings for the broker and the queues."""

    def steps(self, contract: Contract) -> tuple[type[Any], ...]:
        """Return the bootsteps to add to a worker's consumer."""

    def prepare_consumer(self, consumer: Any) -> None:
        """Prepare a worker's consumer, each time that it has connected and is about to consume."""

    def is_unavailable(self, error: Exception) -> bool:
        """Return whether a failed send may succeed later: the broker, network or credentials are unavailable."""

    def longest_delay_seconds(self, queue: Queue | None) -> int:
        """Return the longest delay in seconds that the broker itself supports, regardless of the contract.

        Args:
            queue: the queue; None for one that is not in the contract.
        """

    def check_prepared_size(self, message: Composed, transport_options: Mapping[str, Any]) -> None:
        """Refuse a message that is to be sent later, and is larger than `max_message_bytes` less a margin.

        Raises:
            MessageTooLargeError: it is too large.
        """

    def message_properties(self, message: Outgoing) -> Mapping[str, Any]:
        """Return the broker's own properties of a message.

        Raises:
            MessageGroupMissingError: the queue requires a group.
            DeduplicationError: the queue does not support deduplication, or not this key.
        """


def chosen(contract: Contract) -> Broker:
    """Return the package of the contract's broker."""
    return cast(Broker, options.load(__name__, contract.broker))
