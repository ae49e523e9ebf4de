"""The spans of a service whose contract has `tracing`; see tracing.py.

Their names, kinds and first attributes are those of OpenTelemetry's instrumentation of Celery, which is
not used: a send that raises leaves its span open and current, an attempt that will be retried is no
error there, and an attempt whose process died has no span.

Environment variables of OpenTelemetry choose the sampler, the propagators and where spans go.
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from celery import signals
from opentelemetry import context, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from .contract import Contract
from .failures import describe, reason_of
from .tracing import Settle, Tracing

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Environment variables with the address of a collector. Without any, spans are not exported."""

TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")

EXPORT_SECONDS = 2
"""Time limit of an export, with its retries, unless a variable sets one. A process that ends waits for the last one."""

POLLING = "celery.chord_unlock"
"""Celery's task that polls until a chord's tasks are done. It hands on its trace, without thousands of spans."""

SYSTEMS = {"sqs": "aws_sqs", "rabbitmq": "rabbitmq"}
"""Values of `messaging.system`.

https://opentelemetry.io/docs/specs/semconv/registry/attributes/messaging/
"""


class Spans(Tracing):
    """A span for each message that is sent, and for each attempt."""

    def __init__(self, contract: Contract, environment: str) -> None:
        self._system = SYSTEMS[contract.broker.partition("-")[0]]
        about = {"service.name": contract.service, "deployment.environment.name": environment}
        # Environment variables of OpenTelemetry take precedence.
        self._resource = Resource.create(about).merge(OTELResourceDetector().detect())
        self._exporter = _exporter()

    @cached_property
    def _tracer(self) -> trace.Tracer:
        """Created with the first span: the main process of a worker has none, so no thread exists when it forks."""
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # Nobody else has set one.
            trace.set_tracer_provider(_provider(self._resource, self._exporter))
        return trace.get_tracer(__package__)

    @contextlib.contextmanager
    def sending(self, name: str, queue: str, options: dict[str, Any]) -> Iterator[None]:
        """Make the span of a message that is being sent, and add its trace to the headers in `options`."""
        about = self._about("apply_async", name, queue, options["task_id"])
        with self._span(trace.SpanKind.PRODUCER, about) if name != POLLING else contextlib.nullcontext():
            headers = dict(options.get("headers") or {})
            propagate.inject(headers)
            options["headers"] = headers
            yield

    def headers(self) -> dict[str, str]:
        """Return the headers that carry the active span, for a message that is sent later."""
        carried: dict[str, str] = {}
        propagate.inject(carried)
        return carried

    @contextlib.contextmanager
    def resumed(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Make the span that headers carry the active one."""
        token = context.attach(propagate.extract(headers))
        try:
            yield
        finally:
            context.detach(token)

    @contextlib.contextmanager
    def together(self, name: str) -> Iterator[None]:
        """Make a span that those of the messages of a group or chord are below, unless another one is active."""
        if trace.get_current_span().get_span_context().is_valid:
            yield
        else:
            with self._tracer.start_as_current_span(f"apply_async/{name}"):
                yield

    @contextlib.contextmanager
    def attempt(self, name: str, request: Mapping[str, Any]) -> Iterator[Settle]:
        """Make the span of an attempt, below that of the message."""
        facts = request["delivery_info"]
        about = self._about("run", name, facts["routing_key"], str(request["id"]))
        about["celery_aws.attempt"] = facts["receive_count"]
        token = context.attach(_origin(request))
        try:
            if name == POLLING:
                yield lambda verdict, error: None
            else:
                with self._span(trace.SpanKind.CONSUMER, about) as span:
                    yield lambda verdict, error: _settle(span, facts["receive_count"], verdict, error)
        finally:
            context.detach(token)

    def _about(self, action: str, name: str, queue: str, task_id: str) -> dict[str, Any]:
        return {
            "celery.action": action,
            "celery.task_name": name,
            "messaging.system": self._system,
            "messaging.destination.name": queue,
            "messaging.message.id": task_id,
        }

    def _span(self, kind: trace.SpanKind, about: dict[str, Any]) -> contextlib.AbstractContextManager[trace.Span]:
        name = f"{about['celery.action']}/{about['celery.task_name']}"
        span: contextlib.AbstractContextManager[trace.Span]
        span = self._tracer.start_as_current_span(name, kind=kind, attributes=about)
        return span


def _settle(span: trace.Span, attempt: int, verdict: Any, error: BaseException | None) -> None:
    """Record the outcome of an attempt."""
    span.set_attribute("celery_aws.outcome", verdict.outcome)
    if error is not None:
        reason = reason_of(error, attempt)  # The text of an exception may be huge, or raise.
        event = {"exception.type": type(error).__name__, "exception.message": reason["FailureException"]}
        span.add_event("exception", {**event, "exception.stacktrace": reason.get("FailureTraceback", "")})
        span.set_status(trace.Status(trace.StatusCode.ERROR, describe(error)))


def _origin(request: Mapping[str, Any]) -> context.Context:
    """Return the context of a message. All attempts share it, also if nothing traced who sent the message.

    EventBridge Scheduler, for one, adds no trace. Its messages get one that follows from the task's id.
    """
    found = propagate.extract({name: value for name, value in request.items() if isinstance(value, str)})
    if trace.get_current_span(found).get_span_context().is_valid:
        return found
    digest = hashlib.sha256(str(request.get("root_id") or request["id"]).encode()).digest()
    trace_id, span_id = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    sender = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(trace.NonRecordingSpan(sender), found)


def _exporter() -> OTLPSpanExporter | None:
    """Return the exporter to the collector that a variable names, if one does.

    Raises:
        ValueError: a variable of OpenTelemetry is invalid.
    """
    if not any(map(os.environ.get, ENDPOINTS)):
        return None
    return OTLPSpanExporter(timeout=None if any(map(os.environ.get, TIMEOUTS)) else EXPORT_SECONDS)


def _provider(resource: Resource, exporter: OTLPSpanExporter | None) -> TracerProvider:
    """Return a provider that exports in a thread of its own, and once more when the process ends."""
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if exporter is not None:
        try:
            provider.add_span_processor(BatchSpanProcessor(exporter))
        except ValueError as error:  # It must not fail tasks.
            logger.error("spans are not exported: %s", error)

        def end(**rest: Any) -> None:
            provider.shutdown()

        atexit.register(end)
        signals.worker_process_shutdown.connect(end, weak=False)  # Task processes end without `atexit`.
    return provider
