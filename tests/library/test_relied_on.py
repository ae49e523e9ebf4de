"""What the library relies on of the insides of Celery, kombu, billiard and py-amqp: the one list, with the reasons.

They do not promise to keep it. If a test fails after an upgrade: read what has changed, run all tests, the slow ones
too, and only then write down the new fingerprint that the failure shows.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterator

import amqp
import pytest
from billiard import einfo, pool
from celery import canvas
from celery.app import base as app_base
from celery.app import builtins, defaults, task, trace
from celery.app import utils as app_utils
from celery.apps import worker as worker_app
from celery.backends import base as base_backend
from celery.bin import base as command_base
from celery.bin import celery as command
from celery.concurrency import asynpool, prefork
from celery.fixups import django
from celery.utils import functional
from celery.worker import consumer, loops, request, strategy
from celery.worker import worker as worker_base
from celery.worker.consumer import delayed_delivery
from kombu import messaging
from kombu.asynchronous.http import curl
from kombu.transport import SQS, native_delayed_delivery, pyamqp
from kombu.transport.virtual import base

from library.support import CHASSIS

RELIED_ON = {
    "Receiving, deleting and releasing on SQS are replaced: kombu offers no place for less (brokers/sqs/)": {
        SQS.Channel.__init__: "a74bf9f64cd5",
        SQS.Channel.basic_ack: "ea203438531f",
        SQS.Channel.basic_consume: "949b19b52aa8",
        SQS.Channel.basic_reject: "6055f0dfee5e",
        SQS.Channel.sqs: "3ee83e568cc0",
        SQS.Channel._message_to_python: "16d659e6d2a5",
        SQS.Channel._prepare_json_payload: "f12838c2a3cc",
        SQS.Channel._put: "abbc7aaeaa2c",
        SQS.Channel._schedule_queue: "953f1ad1314e",
        base.QoS: "f884d8db8d64",
        base.Channel.basic_consume: "0fec96269493",
        base.Channel.basic_publish: "83825b675871",
        base.Channel.close: "26368e1cadfc",
    },
    "Requests run on kombu's HTTP client, which is told when one is overdue (brokers/sqs/calls.py)": {
        curl.CurlClient: "089c9760dc8c",
    },
    "Publishing on RabbitMQ waits for confirms of many messages at once (brokers/rabbitmq/)": {
        amqp.Channel.__init__: "3ff08c8d1c65",
        amqp.Channel._basic_publish: "435fd18a6c88",
        amqp.Channel.basic_publish_confirm: "4140656833f6",
        amqp.Channel._on_close: "50e3e350819e",
        amqp.Connection.heartbeat_tick: "6e0e042ed248",
        pyamqp.Message.__init__: "10b73a31689f",
        pyamqp.Channel.prepare_message: "201ac1b11599",
        pyamqp.Transport.establish_connection: "cb508d5533b9",
    },
    "Delayed messages on RabbitMQ are in Celery's queues, and retries are sent there (brokers/rabbitmq/)": {
        native_delayed_delivery.declare_native_delayed_delivery_exchanges_and_queues: "2251c578be67",
        native_delayed_delivery.calculate_routing_key: "3858a31b7f3a",
        consumer.Consumer.Blueprint: "4e66e3796565",
        delayed_delivery.DelayedDelivery._setup_delayed_delivery: "c0fc7a7aca55",
        app_base.Celery.send_task: "062778705809",
        task.Task.signature_from_request: "52ba3d1d0d23",
    },
    "Batches of a producer: kombu drives what the transports bring (brokers/*/batching.py)": {
        messaging._ProducerBatch: "964b3c76720a",
        messaging._ProducerBatchState: "8913ef479b1c",
    },
    "What a worker cannot read or does not know is released, never deleted (consumer.py)": {
        consumer.Consumer.cancel_active_requests: "e4d13603d8d8",
        consumer.Consumer.on_connection_error_after_connected: "4f84dbfff329",
        consumer.Consumer.on_decode_error: "e3538c586a7f",
        consumer.Consumer.on_invalid_task: "9893e7a4eee3",
        consumer.Consumer.on_unknown_message: "213bd3ee55cb",
        consumer.Consumer.on_unknown_task: "35e6cbe56494",
        loops.asynloop: "05a53e519988",
        worker_base.WorkController._process_task_sem: "2b2de9af8a8d",
        request.Request: "4388163373b0",
        request.create_request_cls: "871f30fe1cfe",
        strategy.default: "7d90575ada5e",
    },
    "A worker starts without Celery's other commands (worker.py)": {
        command.celery.callback: "f635735d53b2",
        command_base.CLIContext.__init__: "46469f35cb41",
    },
    "A worker of several queues chooses the request that starts when a process is free (consumer.py)": {
        consumer.Consumer.__init__: "c27ca6ec2d4b",
        consumer.Consumer.apply_eta_task: "e8d993208d35",
        worker_base.WorkController._process_task: "4ffb514847bd",
    },
    "Whether arguments fit a task is asked as Celery does when it sends one, by `__header__` (signatures.py)": {
        functional.head_from_fun: "7e85ff3b3e37",
    },
    "What a stopping worker reads of processes before it forgets their tasks (pool.py)": {
        asynpool.AsynPool.flush: "a7671d710b57",
        asynpool.AsynPool.handle_result_event: "3f3adfc9c296",
        asynpool.AsynPool._flush_writer: "07f00b50a580",
        asynpool.AsynPool._create_write_handlers: "f5f9b8dc805b",
        asynpool.ResultHandler._make_process_result: "0226429696d5",
    },
    "Limits and the death of a task's process (pool.py)": {
        prefork.TaskPool.on_stop: "ab83bf6652cb",
        prefork.process_initializer: "15a8b226f8e0",
        asynpool.AsynPool._create_timelimit_handlers: "4b031bf459e1",
        pool.TimeoutHandler: "33bf907e34f8",
        pool.ApplyResult: "0e0753f51fd2",
        pool.soft_timeout_sighandler: "e3cbe45f62ec",
        einfo.ExceptionWithTraceback: "3be9dabb2458",
        worker_app.on_cold_shutdown: "0283849754eb",
    },
    "States are final only when they are, and outages are waited for (delivery.py, storing.py)": {
        base_backend.Backend.mark_as_done: "87fbe4a218b7",
        base_backend.Backend.mark_as_failure: "d6b5a5b37dfe",
        base_backend.Backend.mark_as_retry: "a669b161fef8",
        base_backend.Backend.mark_as_revoked: "f82fc3606bf1",
        base_backend.Backend.store_result: "2e526cc38f60",
        base_backend.Backend.exception_to_python: "863e25a1c146",
        base_backend.Backend._call_task_errbacks: "394c9b9e6117",
        base_backend.Backend.chord_error_from_stack: "e7f67c34a18d",
        base_backend.BaseKeyValueStoreBackend.on_chord_part_return: "2596f69a7497",
        base_backend.KeyValueStoreBackend._get_task_meta_for: "b470b3fd8abc",
        task.Task.retry: "82cd910b5966",
        task.get_actual_ignore_result: "6b27779c0c26",
        trace.TraceInfo: "a07fc09754c4",
        trace.build_tracer: "b2945aec38e1",
    },
    "Sending in a thread has the current task of the caller, as code that the task calls has (aio.py)": {
        task.Task.__call__: "7dde9f90fb88",
        task.Task._get_request: "c457b9357def",
    },
    "With Django, connections are closed and tasks are imported as in Celery's own fixup (django/)": {
        django.DjangoFixup.install: "5f16f75508bc",
        django.DjangoFixup.on_import_modules: "3ca6867457a9",
        django.DjangoWorkerFixup._is_prefork: "be696e37e304",
        django.DjangoWorkerFixup._close_database: "38c5a1bca1e2",
    },
    "Settings of a module are compared with those of the service before they are used (configuration.py)": {
        app_base.Celery._load_config: "b46ee3cbcb23",
        app_base.Celery.config_from_object: "a71a6710a021",
        defaults.flatten: "b272219a1327",
        app_utils.detect_settings: "9bddbf7dd055",
        app_utils.Settings: "a0a1fe6c6d19",
    },
    "Canvas: a group is checked before its first message, a chord's end knows its group (sending.py)": {
        builtins.add_unlock_chord_task: "3838d38d9fc2",
        canvas.group.apply_async: "b447b7c46c35",
    },
}
"""What is replaced or called, with the fingerprint of what was tested, by the reason."""

ATTRIBUTES = {
    "_accepted": "of billiard's job: a process has said that it has begun (pool.py)",
    "_active_writers": "of Celery's pool: what it is writing to processes (pool.py)",
    "_cache": "of billiard's pool: its jobs (pool.py)",
    "_chord_part_return_script": "of Celery's Redis backend: a claim that is repeated is its own (results/redis.py)",
    "_connect_to_s3": "of Celery's S3 backend, which has no place for timeouts (results/s3.py)",
    "_context": "of Celery's worker request: what its task will know of it (consumer.py)",
    "_dump_pydantic_arguments": "of Celery's task: it was made with pydantic=True (checks.py)",
    "_get_client": "of Celery's DynamoDB and Redis backends, which have no place for timeouts and repeats (results/)",
    "_get_current_object": "of Celery's proxies, documented there: what they stand for (delivery.py, aio.py)",
    "_get_param": "of moto's responses: a parameter of a request (dev/)",
    "_get_s3_object": "of Celery's S3 backend: what it stores by (results/s3.py)",
    "_messages": "of moto's queues: what the emulator lacks (dev/)",
    "_messages_lock": "of moto's queues (dev/)",
    "_old_receipt_handles": "of moto's messages (dev/)",
    "_on_collect": "of kombu's QoS: releases at exit what a channel holds, and outlives it (brokers/sqs/transport.py)",
    "_tasks": "of the application: its tasks without finalizing it (sending.py)",
    "_timeout": "of billiard's job: its hard limit (pool.py)",
    "_timeout_check": "of kombu's HTTP client: its time is over (brokers/sqs/calls.py)",
    "_timeout_handler": "of billiard's pool: it ends what runs for too long (pool.py)",
    "_transport": "of py-amqp's connection: its socket, which a fork leaves to its parent (brokers/rabbitmq/)",
    "_write_to": "of billiard's job: the process that it was sent to (pool.py)",
    "_writer": "of billiard's job: what writes it to its process (pool.py)",
}
"""Other private names, and why."""

FINGERPRINTS = {what: known for group in RELIED_ON.values() for what, known in group.items()}


def fingerprint(relied_on: object) -> str:
    """Return a short hash of source code."""
    return hashlib.sha256(inspect.getsource(relied_on).encode()).hexdigest()[:12]


@pytest.mark.parametrize("relied_on", FINGERPRINTS, ids=lambda relied_on: relied_on.__qualname__)
def test_what_is_relied_on_is_what_was_tested(relied_on):
    assert fingerprint(relied_on) == FINGERPRINTS[relied_on]


def own_names(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module gives: to functions, classes, variables and attributes of its objects."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            yield node.attr


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def test_private_names_of_others_are_in_the_list():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (CHASSIS / "celery_aws").rglob("*.py")]
    own = {name for tree in trees for name in own_names(tree)}
    used = {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }
    listed = {what.__name__ for what in FINGERPRINTS} | ATTRIBUTES.keys()
    public = {"_asdict", "_exit", "_replace"}
    assert used - own - listed - public == set()
    assert ATTRIBUTES.keys() - used - own == set()
