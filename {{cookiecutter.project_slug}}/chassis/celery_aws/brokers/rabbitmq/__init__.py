"""RabbitMQ: how Celery reaches it, and the exchanges and queues that the service has there.

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

TASKS = Exchange("tasks", type="topic", durable=True, no_declare=True)
"""What everything is sent to. Celery's delayed delivery needs a topic exchange.

https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html#native-delayed-delivery
"""

DEAD_LETTERS = Exchange("dead-letters", type="direct", durable=True, no_declare=True)
"""Where what cannot be done goes, by the name of its queue."""

HEARTBEAT_SECONDS = 10
"""How often broker and client tell each other that they live; two that are missed end a connection.

Seldom enough not to mistake a pause of the network for its end.
https://www.rabbitmq.com/docs/heartbeats
"""


TRANSPORT = f"{__name__}.transport:Transport"
"""kombu's own, with fixes; see there."""

CONTROL = "celery.app.control:Control"
"""What Celery's application is to use for remote control: its own works on RabbitMQ."""


def steps() -> tuple[type[Any], ...]:
    """Return what to add to a worker."""
    from .reporting import Reporting

    return (Reporting,)


def is_unavailable(error: Exception) -> bool:
    """Return whether an error of sending may pass: the broker or the network is not there just now."""
    return isinstance(error, (AMQPError, OperationalError, OSError))


class Variables(BaseSettings):
    """Where this environment's broker is, and who the service is to it."""

    broker_url: str = Field(description="amqps:// URL of the broker, without name and password")
    broker_username: str = Field(min_length=1, description="The service's name at the broker")
    broker_password: SecretStr = Field(min_length=1, description="Its password")
    broker_management_url: str = Field(
        default="",
        description="URL of the broker's management API, for the on-call commands; https://<host> unless set",
    )

    @field_validator("broker_url")
    @classmethod
    def broker_encrypted_unless_local(cls, url: str) -> str:
        """Refuse a connection that leaves the machine in plain text, and a password where logs could show it."""
        parts = urlsplit(url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1", "broker")
        if not parts.hostname or (parts.scheme != "amqps" and not (parts.scheme == "amqp" and local)):
            raise ValueError("must be amqps://<host>:5671; plain amqp:// is for this machine alone")
        if "@" in parts.netloc:
            raise ValueError("must hold no name and password: they are BROKER_USERNAME and BROKER_PASSWORD")
        return url

    @field_validator("broker_management_url")
    @classmethod
    def management_encrypted_unless_local(cls, url: str) -> str:
        """Refuse to send the password in plain text from one machine to another."""
        parts = urlsplit(url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1", "broker")
        if url and (not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and local))):
            raise ValueError("must be https://<host>; plain http:// is for this machine alone")
        return url


@dataclass(frozen=True, repr=False)
class Known:
    """What the transport needs to know, and no worker tells."""

    contract: Contract
    variables: Variables

    def __repr__(self) -> str:
        return "contract and variables"

    # So that `inspect stats`, which tells all options of the transport as JSON, is answered.
    __json__ = __repr__


def work_queue(name: str, contract: Contract) -> Queue:
    """Return a queue of tasks, by its name in the contract, as it is to be declared.

    Quorum queues, since they alone survive a lost node of a cluster and count deliveries.
    https://www.rabbitmq.com/docs/quorum-queues
    """
    queue = contract.queue(name)
    return Queue(
        name,
        TASKS,
        routing_key=name,
        no_declare=True,  # By Celery, which would not get over numbers that have changed; see topology.py.
        queue_arguments={
            "x-queue-type": "quorum",
            # A message whose worker dies each time is dead-lettered by the broker; where there is a
            # worker left to count, it counts. Without an exchange for dead letters it would be dropped.
            # https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
            "x-delivery-limit": queue.max_receive_count - 1,
            "x-dead-letter-exchange": DEAD_LETTERS.name,
            "x-dead-letter-routing-key": name,
            # On its way to the dead-letter queue a message is kept until that has it.
            # https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-message-ttl": queue.retention_seconds * 1000,
            # A worker that holds a message for longer loses its channel, or from RabbitMQ 4.3 on its consumer.
            # https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
            "x-consumer-timeout": queue.visibility_timeout_seconds * 1000,
        },
    )


def dead_letter_queue(name: str, contract: Contract) -> Queue:
    """Return the dead-letter queue of a queue, by that queue's name in the contract."""
    return Queue(
        contract.dead_letter_queue_name(contract.queue(name), ""),
        DEAD_LETTERS,
        routing_key=name,
        no_declare=True,
        queue_arguments={
            "x-queue-type": "quorum",
            # Who looks takes messages and gives them back, which counts; RabbitMQ 4 drops after 20.
            "x-delivery-limit": 1_000_000,
            "x-overflow": "reject-publish",
            "x-message-ttl": contract.dead_letter_retention_seconds * 1000,
        },
    )


def celery_settings(contract: Contract, variables: Variables, environment: str) -> dict[str, Any]:
    """Return Celery's settings of broker and queues."""
    parts = urlsplit(variables.broker_url)
    return {
        # No name and no password, which could end in a log; the transport knows them.
        "broker_url": variables.broker_url,
        "broker_transport": TRANSPORT,
        # Left to itself, Celery would not check that the certificate is the host's.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-use-ssl
        "broker_use_ssl": {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": parts.hostname}
        if parts.scheme == "amqps"
        else False,
        "broker_transport_options": {
            # A send has succeeded when the broker says so. What this costs is one answer for each
            # message, or for a hundred of a batch.
            # https://www.rabbitmq.com/docs/confirms#publisher-confirms
            "confirm_publish": True,
            "known": Known(contract, variables),
            # Nobody waits for ever on a broker that has gone in silence.
            "connect_timeout": 5,
            "read_timeout": 15,
            "write_timeout": 15,
            "client_properties": {"connection_name": contract.service},
        },
        "broker_heartbeat": HEARTBEAT_SECONDS,
        # A sender that runs many threads shares this many connections.
        "broker_pool_limit": 10,
        "broker_connection_timeout": 5,
        # A broker that restarts is waited for, however long that takes; meanwhile the worker's health
        # check fails, so whatever runs it may replace it.
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # When the connection is lost, the broker gives what the worker held to others at once. What
        # still runs here would run twice, and its acknowledgement would count for nothing.
        # https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-cancel-long-running-tasks-on-connection-loss
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "task_queues": [work_queue(queue.name, contract) for queue in contract.queues],
        "task_default_queue": contract.celery_name(contract.default_queue),
        "task_default_exchange": TASKS.name,
        "task_default_exchange_type": TASKS.type,
        # A queue nobody knows is a mistake of the sender, not a queue to create.
        "task_create_missing_queues": False,
        # Celery keeps what is not due yet in such queues of its own, instead of in a worker.
        "broker_native_delayed_delivery_queue_type": "quorum",
        # `celery inspect` and `celery control` work, and so does Flower.
        "worker_enable_remote_control": True,
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        # An exclusive queue is locked until the broker has noticed that its connection is gone, and a
        # worker that connects again meanwhile would end over it; RabbitMQ 4.3 takes no other but durable ones.
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        # Whoever listens to events, Flower for example, has a queue of a new name each time.
        "event_queue_exclusive": True,
    }
