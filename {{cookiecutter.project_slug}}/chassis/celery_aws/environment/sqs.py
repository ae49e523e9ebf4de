"""Access to an environment on SQS: queue URLs and attributes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from ..aws import error_code, is_missing
from ..commands import Failure
from ..contract import Queue
from . import Environment as Base


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Name what does not exist, which AWS does not.

    Args:
        what: the queue or table that requests are about.

    Raises:
        Failure: it does not exist.
    """
    try:
        yield
    except ClientError as error:
        if not (is_missing(error) or error_code(error) == "ResourceNotFoundException"):
            raise
        advice = "check --environment, and that these credentials are for its account"
        raise Failure(f"{what} does not exist; {advice}") from error


@dataclass
class Environment(Base):
    """An environment on SQS. It needs AWS credentials, but none of the service's environment variables."""

    _urls: dict[str, str] = field(default_factory=dict)

    @property
    def sqs(self) -> Any:
        """A boto3 client of SQS."""
        return self.client("sqs")

    def url(self, queue: Queue, *, dead: bool = False) -> str:
        """Return the URL of a queue or of its dead-letter queue, from SQS."""
        name = self.name(queue, dead=dead)
        if name not in self._urls:
            of = {"QueueOwnerAWSAccountId": queue.account} if queue.account else {}
            self._urls[name] = self.sqs.get_queue_url(QueueName=name, **of)["QueueUrl"]
        return self._urls[name]

    def urls_at_sqs(self) -> dict[str, str]:
        """Return the URLs of all queues of this service and environment by name, in the contract or not.

        This includes queues of other services whose names have the same prefix.
        """
        # Without a page size, SQS returns at most 1,000 queues and no token for the next page.
        # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ListQueues.html
        pages = self.sqs.get_paginator("list_queues").paginate(
            QueueNamePrefix=self.queue_name_prefix, PaginationConfig={"PageSize": 1000}
        )
        urls = [url for page in pages for url in page.get("QueueUrls", [])]
        return {url.rpartition("/")[2]: url for url in sorted(urls)}

    @property
    def control_table(self) -> str:
        """Name of the DynamoDB table of `remote_control`."""
        return self.contract.control_table_name(self.environment)

    @property
    def queue_name_prefix(self) -> str:
        """Prefix of the names of all queues of this service and environment."""
        return f"{self.contract.service}-{self.environment}-"

    def live_schedules(self, *, delayed: bool = False, prefix: str = "") -> Iterator[dict[str, Any]]:
        """Yield schedules at EventBridge Scheduler: those of the contract, or of delayed tasks.

        Args:
            delayed: those of delayed tasks.
            prefix: what their names begin with; empty for all.
        """
        client, group = self.client("scheduler"), self.contract.schedule_group_name(self.environment, delayed=delayed)
        only = {"NamePrefix": prefix} if prefix else {}
        for page in client.get_paginator("list_schedules").paginate(GroupName=group, **only):
            for listed in page["Schedules"]:
                # It may have been sent, and so deleted, since it was listed.
                with contextlib.suppress(client.exceptions.ResourceNotFoundException):
                    yield client.get_schedule(Name=listed["Name"], GroupName=group)

    def attributes(self, queue: Queue, *names: str, dead: bool = False) -> dict[str, str]:
        """Return attributes of a queue or of its dead-letter queue; all attributes by default."""
        answer = self.sqs.get_queue_attributes(
            QueueUrl=self.url(queue, dead=dead), AttributeNames=list(names or ("All",))
        )
        return dict(answer.get("Attributes", {}))

    def arn(self, queue: Queue, *, dead: bool = False) -> str:
        """Return the ARN of a queue or of its dead-letter queue."""
        return self.attributes(queue, "QueueArn", dead=dead)["QueueArn"]

    def depth(self, queue: Queue, *, dead: bool = False) -> int:
        """Return the approximate number of messages, including those in flight."""
        return sum(
            map(
                int,
                self.attributes(
                    queue, "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", dead=dead
                ).values(),
            )
        )
