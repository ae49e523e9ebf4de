"""One environment of the service in AWS: queue URLs, queue attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..contract import Queue
from . import Environment as Base


@dataclass
class Environment(Base):
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

    def urls_at_sqs(self) -> dict[str, str]:
        """Return the URL of each queue of this service and environment at SQS by its name, in the contract or not.

        A queue of another service is among them if its name begins the same.
        """
        # Without a page size, SQS returns 1,000 queues and does not say that there are more.
        # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ListQueues.html
        pages = self.sqs.get_paginator("list_queues").paginate(
            QueueNamePrefix=self.queue_name_prefix, PaginationConfig={"PageSize": 1000}
        )
        urls = [url for page in pages for url in page.get("QueueUrls", [])]
        return {url.rpartition("/")[2]: url for url in sorted(urls)}

    @property
    def queue_name_prefix(self) -> str:
        """What the name of each queue of this service and environment begins with."""
        return f"{self.contract.service}-{self.environment}-"

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
