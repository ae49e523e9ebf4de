"""Amazon SQS: how Celery reaches it, and what it can do.

https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/sqs.html
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError
from kombu import Queue
from kombu.exceptions import OperationalError
from pydantic import Field
from pydantic_settings import BaseSettings

from ... import aws
from ...contract import Contract
from .properties import longest_delay_seconds, message_properties

__all__ = [
    "CONTROL",
    "TRANSPORT",
    "Variables",
    "celery_settings",
    "is_unavailable",
    "longest_delay_seconds",
    "message_properties",
    "steps",
]

PERMANENT = frozenset(
    {"AccessDenied", "AccessDeniedException", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
)
"""Error codes that are not waited for when what follows a task is to be sent."""


def is_unavailable(error: Exception) -> bool:
    """Return whether sending may succeed later: SQS, the network or credentials are unavailable just now."""
    if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in PERMANENT:
        return False
    return isinstance(error, OperationalError) or aws.is_unavailable(error)


TRANSPORT = f"{__name__}.transport:Transport"
"""kombu's own, with fixes; see there."""

CONTROL = f"{__name__}.control:Control"
"""What Celery's application is to use for remote control, which SQS has not."""


def steps() -> tuple[type[Any], ...]:
    """Return nothing to add to a worker: SQS itself tells CloudWatch how full its queues are."""
    return ()


class Variables(BaseSettings):
    """Where this environment's queues are."""

    queue_url_base: str = Field(
        pattern=r"^https?://[^/\s]+/[0-9]{12}$",
        description="What queue URLs begin with: https://sqs.<region>.amazonaws.com/<account>",
    )


def celery_settings(contract: Contract, variables: Variables, environment: str) -> dict[str, Any]:
    """Return Celery's settings of broker and queues."""
    return {
        # No host and no key: boto3 finds the endpoint by the region, and credentials by its chain.
        "broker_url": "sqs://",
        "broker_transport": TRANSPORT,
        "broker_transport_options": {
            # Never left to a default: without one, kombu turns to us-east-1 in silence.
            "region": contract.region,
            # Queues known beforehand make ListQueues and CreateQueue needless, so the service
            # needs no right to either. There must be no prefix: kombu applies it to some look-ups
            # of these names and forgets it in others.
            "predefined_queues": {
                contract.celery_name(queue): {
                    "url": f"{variables.queue_url_base}/{contract.queue_name(queue, environment)}",
                    # What the transport needs to know of the queue; kombu ignores it.
                    "queue": queue,
                    "dead_letter_url": (
                        f"{variables.queue_url_base}/{contract.dead_letter_queue_name(queue, environment)}"
                    ),
                    "messages_per_poll": contract.messages_per_poll(queue),
                    "visibility_timeout_seconds": queue.visibility_timeout_seconds,
                    "heartbeat_seconds": queue.heartbeat_seconds,
                    "heartbeat_limit_seconds": queue.heartbeat_limit_seconds,
                }
                for queue in contract.queues
            },
            # An idle worker costs one request in this time, and a message interrupts the wait.
            "wait_time_seconds": contract.wait_time_seconds,
            "max_message_bytes": contract.max_message_bytes,
            # The pause between two polls that brought nothing.
            "polling_interval": contract.polling_interval_seconds,
            # Sending. boto3 alone waits 60 s and tries five times, so that a sender hangs for minutes.
            # What workers receive, delete and release goes another way; see calls.py.
            "client-config": {
                "connect_timeout": 5,
                "read_timeout": 5,
                "retries": {"mode": "standard", "total_max_attempts": 3},
            },
            # Bodies as readable JSON; kombu's default is base64 twice, and 1.8 times the size.
            "body_encoding": None,
        },
        "task_queues": [
            # There is nothing to declare, and asking SQS would be a needless request and right.
            Queue(contract.celery_name(queue), no_declare=True)
            for queue in contract.queues
        ],
        "task_default_queue": contract.celery_name(contract.default_queue),
        # SQS has no broadcast, so remote control, events and their queues cannot work on it; asked
        # all the same, kombu would try to create queues.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-enable-remote-control
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        # A queue nobody knows is a mistake of the sender, not a queue to create.
        "task_create_missing_queues": False,
        # After an error that kombu takes for a lost connection, Celery 5.7 reconnects but never
        # polls again. Ending the process instead lets whatever runs it start a fresh one.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-retry
        "broker_connection_retry": False,
        "broker_connection_retry_on_startup": True,
    }
