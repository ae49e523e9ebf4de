"""RabbitMQ as Celery's broker, and the exchanges and queues of the service.

https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from amqp.exceptions import AMQPError
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from ...contract import Contract
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

TASK_EXCHANGE = Exchange("tasks", type="topic", durable=True, no_declare=True)
"""The exchange of all tasks. Celery's native delayed delivery requires a topic exchange.

https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html#native-delayed-delivery
"""

DEAD_LETTER_EXCHANGE = Exchange("dead-letters", type="direct", durable=True, no_declare=True)
"""The exchange of dead-letter messages; the routing key is the name of the queue."""

HEARTBEAT_SECONDS = 10
"""AMQP heartbeat; two missed heartbeats close the connection.

Long enough to survive a short interruption of the network.
https://www.rabbitmq.com/docs/heartbeats
"""


TRANSPORT = f"{__name__}.transport:Transport"
"""kombu's AMQP transport with fixes."""

COUNTDOWN_LIMIT = (
    ": the delay queues in RabbitMQ are declared for max_countdown_seconds of contract.json. "
    "Raise max_countdown_seconds"
)

CONTROL = "celery.app.control:Control"
"""Celery's remote control, which works on RabbitMQ."""


def steps(contract: Contract) -> tuple[type[Any], ...]:
    """Return the bootsteps to add to a worker's consumer."""
    from .pauses import LookAgain
    from .reporting import Reporting

    return (Reporting, LookAgain)


def prepare_consumer(consumer: Any) -> None:
    """Have a worker that is about to consume leave out the queues that are paused."""
    from .pauses import deselect_paused

    deselect_paused(consumer)


def is_unavailable(error: Exception) -> bool:
    """Return whether a failed send may succeed later: the broker or the network is unavailable."""
    return isinstance(error, (AMQPError, OperationalError, OSError))


class Variables(BaseSettings):
    """This environment's broker, and the service's user there."""

    broker_url: str = Field(description="amqps:// URL of the broker, without user name and password")
    broker_username: str = Field(min_length=1, description="The service's user name at the broker")
    broker_password: SecretStr = Field(min_length=1, description="Password of that user")
    broker_management_url: str = Field(
        default="",
        description="URL of the broker's management API, for operator commands; default: https://<host>",
    )

    @field_validator("broker_url")
    @classmethod
    def broker_encrypted_unless_local(cls, url: str) -> str:
        """Refuse an unencrypted connection to another machine, and a password, which could be logged."""
        parts = urlsplit(url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1", "broker")
        if not parts.hostname or (parts.scheme != "amqps" and not (parts.scheme == "amqp" and local)):
            raise ValueError("must be amqps://<host>:5671; amqp:// is allowed only for localhost")
        if "@" in parts.netloc:
            raise ValueError("must not contain a user name or password; set BROKER_USERNAME and BROKER_PASSWORD")
        return url

    @field_validator("broker_management_url")
    @classmethod
    def management_encrypted_unless_local(cls, url: str) -> str:
        """Refuse an unencrypted connection to another machine."""
        parts = urlsplit(url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1", "broker")
        if url and (not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and local))):
            raise ValueError("must be https://<host>; http:// is allowed only for localhost")
        return url


@dataclass(frozen=True, repr=False)
class ServiceConfig:
    """The contract and the variables, for the transport. It is part of the transport options."""

    contract: Contract
    variables: Variables

    def __repr__(self) -> str:
        return "contract and variables"

    # `inspect stats` serializes the transport options as JSON.
    __json__ = __repr__


def work_queue(name: str, contract: Contract) -> Queue:
    """Return the declaration of a queue, by its name in the contract.

    Only quorum queues survive the loss of a node of a cluster, and count deliveries.
    https://www.rabbitmq.com/docs/quorum-queues
    """
    queue = contract.queue(name)
    return Queue(
        name,
        TASK_EXCHANGE,
        routing_key=name,
        no_declare=True,  # Celery fails if an argument has changed; topology.py declares the queue.
        queue_arguments={
            "x-queue-type": "quorum",
            # If the worker dies in every attempt, the broker counts and dead-letters; otherwise the
            # worker does. Without a dead-letter exchange, the message would be dropped.
            # https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
            "x-delivery-limit": queue.max_receive_count - 1,
            "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE.name,
            "x-dead-letter-routing-key": name,
            # Keep a message until the dead-letter queue has confirmed it.
            # https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-message-ttl": queue.retention_seconds * 1000,
            # A worker that holds a message longer loses its channel, or its consumer since RabbitMQ 4.3.
            # https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
            "x-consumer-timeout": queue.visibility_timeout_seconds * 1000,
        },
    )


def dead_letter_queue(name: str, contract: Contract) -> Queue:
    """Return the declaration of a dead-letter queue, by the name of its queue in the contract."""
    return Queue(
        contract.dead_letter_queue_name(contract.queue(name), ""),
        DEAD_LETTER_EXCHANGE,
        routing_key=name,
        no_declare=True,
        queue_arguments={
            "x-queue-type": "quorum",
            # Peeking receives and releases messages, which counts; by default RabbitMQ 4 drops after 20.
            "x-delivery-limit": 1_000_000,
            "x-overflow": "reject-publish",
            "x-message-ttl": contract.dead_letter_retention_seconds * 1000,
        },
    )


def variables(contract: Contract) -> type[Variables]:
    """Return the settings class of the environment variables, which is the same for every contract."""
    return Variables


def celery_settings(contract: Contract, variables: Variables, environment: str) -> dict[str, Any]:
    """Return Celery's settings for the broker and the queues."""
    parts = urlsplit(variables.broker_url)
    return {
        # Without user name and password, which could be logged; the transport adds them.
        "broker_url": variables.broker_url,
        "broker_transport": TRANSPORT,
        # By default Celery does not verify the host name of the certificate.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-use-ssl
        "broker_use_ssl": {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": parts.hostname}
        if parts.scheme == "amqps"
        else False,
        "broker_transport_options": {
            # A send succeeds when the broker confirms it. This costs one round trip per message, or
            # per hundred messages of a batch.
            # https://www.rabbitmq.com/docs/confirms#publisher-confirms
            "confirm_publish": True,
            "service_config": ServiceConfig(contract, variables),
            # Timeouts in case the broker stops responding.
            "connect_timeout": 5,
            "read_timeout": 15,
            "write_timeout": 15,
            "client_properties": {"connection_name": contract.service},
        },
        "broker_heartbeat": HEARTBEAT_SECONDS,
        # The threads of a producer share this many connections.
        "broker_pool_limit": 10,
        "broker_connection_timeout": 5,
        # Wait for a broker that restarts, without a limit; meanwhile the worker's health check fails,
        # so that ECS or systemd may replace it.
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # After a lost connection, the broker redelivers the worker's messages at once. Tasks that
        # continue here would run twice, and could not acknowledge their messages.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-cancel-long-running-tasks-on-connection-loss
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "task_queues": [work_queue(queue.name, contract) for queue in contract.queues],
        "task_default_queue": contract.celery_name(contract.default_queue),
        "task_default_exchange": TASK_EXCHANGE.name,
        "task_default_exchange_type": TASK_EXCHANGE.type,
        # An unknown queue is an error of the producer, not a queue to create.
        "task_create_missing_queues": False,
        # For `celery inspect`, `celery control` and Flower, which enables events in all workers. Without
        # a listener, events would cost workers a third of their CPU time.
        "worker_enable_remote_control": True,
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        # An exclusive queue stays locked until the broker notices a lost connection, and a worker that
        # reconnects before would exit. From RabbitMQ 4.3 on, Amazon MQ refuses queues that are neither
        # exclusive nor durable; 4.3.6 itself permits them.
        # https://docs.aws.amazon.com/amazon-mq/latest/developer-guide/rabbitmq-43.html
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        # Event listeners, such as Flower, use a new queue name for each connection.
        "event_queue_exclusive": True,
    }
