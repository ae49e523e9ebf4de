"""Access of operator commands to an environment of the service, such as staging or production."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from .. import options, service
from ..commands import Failure
from ..contract import Contract, Queue

DEVELOPMENT = "development"
"""The environment of `make dev` and tests."""


@dataclass
class Environment:
    """An environment of the service; each broker has a subclass with access to its queues."""

    contract: Contract
    environment: str
    _clients: dict[str, Any] = field(default_factory=dict)
    _creating: Any = field(default_factory=threading.Lock, repr=False)
    """Held while a client is created, which is not thread-safe in boto3."""

    def client(self, service: str) -> Any:
        """Return a boto3 client with short timeouts, cached by service."""
        with self._creating:
            if service not in self._clients:
                self._clients[service] = self._new_client(service)
        return self._clients[service]

    def _new_client(self, service: str) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=5, read_timeout=25, retries={"mode": "standard", "total_max_attempts": 4})
        try:
            return boto3.client(service, region_name=self.contract.region, config=config)
        except ValueError as error:
            raise Failure(f"invalid configuration of AWS: {error}; check AWS_ENDPOINT_URL") from error

    def name(self, queue: Queue, *, dead: bool = False) -> str:
        """Return the name of a queue, or of its dead-letter queue, at the broker."""
        return self.contract.queue_name(queue, self.environment, dead=dead)


def find(environment: str) -> Any:
    """Return an environment of the service, of the class for its broker.

    Raises:
        ContractError: the contract breaks rules.
    """
    contract = service.contract()
    return options.load(__name__, contract.broker).Environment(contract, environment)
