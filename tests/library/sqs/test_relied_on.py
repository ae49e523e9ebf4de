"""What the service relies on of the insides of Celery and kombu, which they do not promise to keep.

If a test fails after an upgrade: read what has changed, run all tests, the slow ones too, and only then write down the
new fingerprint that the failure shows.
"""

from __future__ import annotations

import hashlib
import inspect

import pytest
from billiard import einfo, pool
from celery import canvas
from celery.app import builtins, task, trace
from celery.apps import worker as worker_app
from celery.backends import base as base_backend
from celery.concurrency import asynpool, prefork
from celery.worker import consumer, loops, request, strategy
from celery.worker import worker as worker_base
from kombu import messaging
from kombu.asynchronous.http import curl
from kombu.transport import SQS
from kombu.transport.virtual import base

FINGERPRINTS = {
    SQS.Channel.__init__: "a74bf9f64cd5",
    SQS.Channel.basic_ack: "ea203438531f",
    SQS.Channel.basic_consume: "949b19b52aa8",
    SQS.Channel.basic_reject: "6055f0dfee5e",
    SQS.Channel.sqs: "3ee83e568cc0",
    SQS.Channel._get_message_estimate: "6ad20d37c43d",
    SQS.Channel._message_to_python: "16d659e6d2a5",
    SQS.Channel._put: "abbc7aaeaa2c",
    SQS.Channel._restore: "88fc2813c093",
    SQS.Channel._schedule_queue: "953f1ad1314e",
    curl.CurlClient: "089c9760dc8c",
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
    prefork.process_initializer: "15a8b226f8e0",
    asynpool.AsynPool._create_timelimit_handlers: "4b031bf459e1",
    pool.TimeoutHandler: "33bf907e34f8",
    pool.ApplyResult: "0e0753f51fd2",
    base_backend.Backend.mark_as_done: "87fbe4a218b7",
    base_backend.Backend.mark_as_failure: "d6b5a5b37dfe",
    base_backend.Backend.mark_as_revoked: "f82fc3606bf1",
    base_backend.Backend.store_result: "2e526cc38f60",
    base_backend.BaseKeyValueStoreBackend.on_chord_part_return: "2596f69a7497",
    pool.soft_timeout_sighandler: "e3cbe45f62ec",
    einfo.ExceptionWithTraceback: "3be9dabb2458",
    base_backend.Backend.mark_as_retry: "a669b161fef8",
    base_backend.Backend.exception_to_python: "863e25a1c146",
    base_backend.KeyValueStoreBackend._get_task_meta_for: "b470b3fd8abc",
    task.Task.retry: "82cd910b5966",
    task.get_actual_ignore_result: "6b27779c0c26",
    base_backend.Backend._call_task_errbacks: "394c9b9e6117",
    base_backend.Backend.chord_error_from_stack: "e7f67c34a18d",
    builtins.add_unlock_chord_task: "3838d38d9fc2",
    canvas.group.apply_async: "b447b7c46c35",
    worker_base.WorkController._process_task_sem: "2b2de9af8a8d",
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
