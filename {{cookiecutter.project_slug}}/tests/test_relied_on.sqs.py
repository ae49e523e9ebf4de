"""What the service relies on of the insides of Celery and kombu, which they do not promise to keep.

If a test fails after an upgrade: read what has changed, run all tests, the slow ones too, and only then write down the
new fingerprint that the failure shows.
"""

from __future__ import annotations

import hashlib
import inspect

import pytest
from celery.app import trace
from celery.apps import worker as worker_app
from celery.concurrency import prefork
from celery.worker import consumer, loops, request, strategy
from kombu import messaging
from kombu.asynchronous.aws.connection import AsyncHTTPSConnection
from kombu.asynchronous.aws.sqs.connection import AsyncSQSConnection
from kombu.transport import SQS
from kombu.transport.virtual import base

FINGERPRINTS = {
    SQS.Channel.__init__: "a74bf9f64cd5",
    SQS.Channel.asynsqs: "66a72c972d14",
    SQS.Channel.basic_ack: "ea203438531f",
    SQS.Channel.basic_consume: "949b19b52aa8",
    SQS.Channel.basic_reject: "6055f0dfee5e",
    SQS.Channel.sqs: "3ee83e568cc0",
    SQS.Channel._get_async: "8148f68087ab",
    SQS.Channel._get_message_estimate: "6ad20d37c43d",
    SQS.Channel._message_to_python: "16d659e6d2a5",
    SQS.Channel._on_messages_ready: "c947764eea94",
    SQS.Channel._put: "abbc7aaeaa2c",
    SQS.Channel._release_messages: "93f733a8bd26",
    SQS.Channel._restore: "88fc2813c093",
    SQS.Channel._schedule_queue: "953f1ad1314e",
    AsyncSQSConnection.get_http_connection: "5f62f9cfa98e",
    AsyncSQSConnection._on_list_ready: "a04054ae42c0",
    AsyncHTTPSConnection.getrequest: "612a5b7dd8bd",
    base.QoS: "f884d8db8d64",
    base.Channel.basic_consume: "0fec96269493",
    base.Channel.basic_publish: "83825b675871",
    base.Channel.close: "26368e1cadfc",
    messaging._ProducerBatch: "964b3c76720a",
    messaging._ProducerBatchState: "8913ef479b1c",
    consumer.Consumer.cancel_active_requests: "e4d13603d8d8",
    consumer.Consumer.on_decode_error: "e3538c586a7f",
    consumer.Consumer.on_invalid_task: "9893e7a4eee3",
    consumer.Consumer.on_unknown_message: "213bd3ee55cb",
    consumer.Consumer.on_unknown_task: "35e6cbe56494",
    loops.asynloop: "05a53e519988",
    prefork.TaskPool.on_stop: "ab83bf6652cb",
    request.Request: "4388163373b0",
    request.create_request_cls: "871f30fe1cfe",
    strategy.default: "7d90575ada5e",
    trace.TraceInfo: "a07fc09754c4",
    trace.build_tracer: "b2945aec38e1",
    worker_app.on_cold_shutdown: "0283849754eb",
}


def fingerprint(relied_on: object) -> str:
    """Return a short hash of source code."""
    return hashlib.sha256(inspect.getsource(relied_on).encode()).hexdigest()[:12]


@pytest.mark.parametrize("relied_on", FINGERPRINTS, ids=lambda relied_on: relied_on.__qualname__)
def test_what_is_relied_on_is_what_was_tested(relied_on):
    assert fingerprint(relied_on) == FINGERPRINTS[relied_on]
