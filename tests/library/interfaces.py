"""That every option has what the library needs of it; `make check` has mypy tell."""

from __future__ import annotations

from celery_aws.brokers import Broker, rabbitmq, sqs
from celery_aws.dlq import DeadLetterQueue
from celery_aws.dlq import rabbitmq as rabbitmq_dlq
from celery_aws.dlq import sqs as sqs_dlq
from celery_aws.queues import Depths
from celery_aws.queues import rabbitmq as rabbitmq_queues
from celery_aws.queues import sqs as sqs_queues
from celery_aws.results import Results, dynamodb, none, redis, s3

BROKERS: tuple[Broker, ...] = (sqs, rabbitmq)
RESULTS: tuple[Results, ...] = (s3, dynamodb, redis, none)
QUEUES: tuple[Depths, ...] = (sqs_queues, rabbitmq_queues)


def dead_letter_queues(
    at_sqs: sqs_dlq.DeadLetterQueue, at_rabbitmq: rabbitmq_dlq.DeadLetterQueue
) -> tuple[DeadLetterQueue, ...]:
    """Return both, as what both are."""
    return at_sqs, at_rabbitmq
