"""One environment of the service in AWS: clients, queue URLs, queue attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...contract import Contract, Queue, read


@dataclass
class Place:
    """Where a command looks. It needs credentials and the environment's name, and no other variable of the service."""

    contract: Contract
    environment: str
    _clients: dict[str, Any] = field(default_factory=dict)
    _urls: dict[str, str] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """Return a boto3 client that gives up within half a minute."""
        if service not in self._clients:
            import boto3
            from botocore.config import Config

            config = Config(connect_timeout=5, read_timeout=25, retries={"mode": "standard", "total_max_attempts": 4})
            self._clients[service] = boto3.client(service, region_name=self.contract.region, config=config)
        return self._clients[service]

    @property
    def sqs(self) -> Any:
        """A client of SQS."""
        return self.client("sqs")

    def name(self, queue: Queue, *, dead: bool = False) -> str:
        """Return the name in AWS of a queue or of its dead-letter queue."""
        naming = self.contract.dead_letter_queue_name if dead else self.contract.queue_name
        return naming(queue, self.environment)

    def url(self, queue: Queue, *, dead: bool = False) -> str:
        """Return the URL of a queue or of its dead-letter queue, as SQS tells it."""
        name = self.name(queue, dead=dead)
        if name not in self._urls:
            self._urls[name] = self.sqs.get_queue_url(QueueName=name)["QueueUrl"]
        return self._urls[name]

    def attributes(self, queue: Queue, *names: str, dead: bool = False) -> dict[str, str]:
        """Return attributes of a queue or of its dead-letter queue; all of them, if none is named."""
        answer = self.sqs.get_queue_attributes(
            QueueUrl=self.url(queue, dead=dead), AttributeNames=list(names or ("All",))
        )
        return dict(answer.get("Attributes", {}))

    def arn(self, queue: Queue, *, dead: bool = False) -> str:
        """Return the ARN of a queue or of its dead-letter queue."""
        return self.attributes(queue, "QueueArn", dead=dead)["QueueArn"]

    def depth(self, queue: Queue, *, dead: bool = False) -> int:
        """Return about how many messages there are, hidden ones included."""
        return sum(
            map(
                int,
                self.attributes(
                    queue, "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", dead=dead
                ).values(),
            )
        )


def place(environment: str) -> Place:
    """Return an environment of the service.

    Raises:
        ContractError: the contract breaks rules.
    """
    return Place(read(), environment)
