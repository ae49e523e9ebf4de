"""Amazon SQS as Celery's broker.

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
from . import delays
from .batching import check_prepared_size
from .properties import longest_delay_seconds, message_properties

__all__ = [
    "CONTROL",
    "COUNTDOWN_LIMIT",
    "TRANSPORT",
    "Variables",
    "celery_settings",
    "check_prepared_size",
    "is_unavailable",
    "longest_delay_seconds",
    "message_properties",
    "prepare_consumer",
    "steps",
    "variables",
]

PERMANENT = frozenset(
    {"AccessDenied", "AccessDeniedException", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
)
"""Error codes after which sending is not retried."""


def is_unavailable(error: Exception) -> bool:
    """Return whether a failed send may succeed later: SQS, the network or credentials are unavailable."""
    if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in PERMANENT:
        return False
    return isinstance(error, OperationalError) or aws.is_unavailable(error)


TRANSPORT = f"{__name__}.transport:Transport"
"""kombu's SQS transport with fixes."""

COUNTDOWN_LIMIT = (
    "; the message would be redelivered before that. Raise max_countdown_seconds (and with it "
    "visibility_timeout_seconds) in contract.json, or set long_delays to have EventBridge Scheduler send such tasks"
)

CONTROL = f"{__name__}.control:Control"
"""Writes commands to a table that workers read, or refuses them."""


def steps(contract: Contract) -> tuple[type[Any], ...]:
    """Return what reads that table, if the contract has `remote_control`."""
    if not contract.remote_control:
        return ()
    from .listener import Listening  # Only workers have to import Celery's worker.

    return (Listening,)


def prepare_consumer(consumer: Any) -> None:
    """Do nothing: the table of remote control tells a worker which queues are paused."""


class Variables(BaseSettings):
    """The location of this environment's queues."""

    queue_url_base: str = Field(
        pattern=r"^https?://[^/\s]+/[0-9]{12}$",
        description="Prefix of the queue URLs: https://sqs.<region>.amazonaws.com/<account>",
    )


class DelayVariables(Variables):
    """With `long_delays`, also what the schedules of delayed tasks use."""

    scheduler_role_arn: str = Field(
        pattern=r"^arn:[a-z-]+:iam::[0-9]{12}:role/\S+$",
        description="With long_delays: ARN of the role with which EventBridge Scheduler sends delayed tasks",
    )
    scheduler_kms_key_arn: str = Field(
        default="", description="With long_delays: ARN of the KMS key of their schedules; empty for that of AWS"
    )


class ControlVariables(Variables):
    """With `remote_control`, also the table through which workers are controlled."""

    control_table: str = Field(
        pattern=r"^[A-Za-z0-9_.-]{3,255}$",
        description="With remote_control: DynamoDB table through which workers are controlled",
    )


class AllVariables(DelayVariables, ControlVariables):
    """With `long_delays` and `remote_control`."""


def variables(contract: Contract) -> type[Variables]:
    """Return the settings class of the environment variables that a contract needs."""
    if contract.remote_control:
        return AllVariables if contract.long_delays else ControlVariables
    return DelayVariables if contract.long_delays else Variables


def celery_settings(contract: Contract, variables: Variables, environment: str) -> dict[str, Any]:
    """Return Celery's settings for the broker and the queues."""
    return {
        # No host and no key: boto3 determines the endpoint and the credentials.
        "broker_url": "sqs://",
        "broker_transport": TRANSPORT,
        "broker_transport_options": {
            # Without a region, kombu silently uses us-east-1.
            "region": contract.region,
            # With predefined queues, the service needs no permission for ListQueues and
            # CreateQueue. No prefix: kombu applies it inconsistently to these names.
            "predefined_queues": {
                contract.celery_name(queue): {
                    "url": contract.queue_url(queue, variables.queue_url_base, environment),
                    # The following keys are for this library's transport; kombu ignores them.
                    "queue": queue,
                    "dead_letter_url": contract.queue_url(queue, variables.queue_url_base, environment, dead=True),
                    "messages_per_poll": contract.messages_per_poll(queue),
                    "position": contract.worker_of(queue).queues.index(queue.name),
                    "visibility_timeout_seconds": queue.visibility_timeout_seconds,
                    "heartbeat_seconds": queue.heartbeat_seconds,
                    "heartbeat_limit_seconds": queue.heartbeat_limit_seconds,
                }
                for queue in contract.queues
            },
            # An idle worker makes one request in this time; a message ends the wait.
            "wait_time_seconds": contract.wait_time_seconds,
            "max_message_bytes": contract.max_message_bytes,
            "scheduler": (
                delays.scheduler(contract, variables.scheduler_role_arn, variables.scheduler_kms_key_arn, environment)
                if isinstance(variables, DelayVariables)
                else None
            ),
            "control_table": variables.control_table if isinstance(variables, ControlVariables) else None,
            # Delay after a poll that returned no messages.
            "polling_interval": contract.polling_interval_seconds,
            # For sending. By default boto3 waits 60 s and tries five times, so a producer would hang
            # for minutes. Workers receive and delete by calls.py instead.
            "client-config": {
                "connect_timeout": 5,
                "read_timeout": 5,
                "retries": {"mode": "standard", "total_max_attempts": 3},
            },
            # Bodies as readable JSON; kombu's default encodes base64 twice, 1.8 times the size.
            "body_encoding": None,
        },
        "task_queues": [
            # Terraform creates the queues; declaring them would need requests and permissions.
            Queue(contract.celery_name(queue), no_declare=True)
            for queue in contract.queues
        ],
        "task_default_queue": contract.celery_name(contract.default_queue),
        # SQS has no broadcast, so Celery's own remote control and events cannot work. If they were enabled,
        # kombu would try to create queues. See control_table.py for the contract's `remote_control`.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-enable-remote-control
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        # An unknown queue is an error of the producer, not a queue to create.
        "task_create_missing_queues": False,
        # After a lost connection, Celery 5.7 reconnects but never polls again. Instead the process
        # exits, and ECS or systemd starts a new one.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-retry
        "broker_connection_retry": False,
        "broker_connection_retry_on_startup": True,
    }
