"""One environment of the service in AWS: queue URLs, queue attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...contract import Queue, read
from .environment import Environment


@dataclass
class Place(Environment):
    """Where a command looks. It needs credentials and the environment's name, and no other variable of the service."""

    _urls: dict[str, str] = field(default_factory=dict)

    @property
    def sqs(self) -> Any:
        """A client of SQS."""
        return self.client("sqs")

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
