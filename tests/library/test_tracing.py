"""Traces: one from the producer over every attempt to what follows, as a collector receives it from real workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import pytest
from celery import chord, group
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from library.commands import Commands
from library.probes import BadReprError
from library.support import (
    CONTRACT,
    FAST_CONTRACT,
    HAS_RESULTS,
    PATH,
    VISIBILITY_TIMEOUT_SECONDS,
    contract,
    eventually,
    module,
    notes,
    running_service,
)

TRACING = replace(contract, tracing=True)


class Collector:
    """Receives spans as an OpenTelemetry collector does, over OTLP/HTTP."""

    def __init__(self, answers=True):
        received = self.received = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                request = ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                received.extend((each.resource, span) for each in request.resource_spans for span in spans_in(each))
                if not answers:
                    time.sleep(60)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            # By default a process waits two seconds for its last export: not enough on a busy machine.
            "OTEL_EXPORTER_OTLP_TIMEOUT": "30" if answers else "",
        }

    def trace_of(self, name):
        """Wait for a span of that name, and for what else is under way, and return the id of its trace."""
        assert eventually(lambda: [span for _, span in self.received if span.name == name])
        trace.get_tracer_provider().force_flush()
        (found,) = {span.trace_id.hex() for _, span in self.received if span.name == name}
        return found

    def spans(self, trace_id, name=""):
        """Return the spans of a trace whose names contain a text, in the order of their starts."""
        found = [span for _, span in self.received if span.trace_id.hex() == trace_id and name in span.name]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


def spans_in(of_resource):
    return [span for scope in of_resource.scope_spans for span in scope.spans]


def about(span):
    """Return the attributes of a span."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def outcomes(spans):
    return [(about(span)["celery_aws.attempt"], about(span)["celery_aws.outcome"]) for span in spans]


@contextmanager
def collector(**options):
    made = Collector(**options)
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


@pytest.fixture(scope="module")
def collected():
    with collector() as made:
        yield made


@pytest.fixture(scope="module")
def traced(tmp_path_factory, collected):
    """A service with tracing and a worker, whose messages are redelivered soon if it is killed."""
    folder = tmp_path_factory.mktemp("logs")
    with (
        mock.patch.dict(os.environ, collected.variables),
        running_service(folder, VISIBILITY_TIMEOUT_SECONDS, tracing=True, max_receive_count=3) as service,
    ):
        service.start_worker()
        assert service.ready(), service.log()
        yield service
        trace.get_tracer_provider().force_flush()


@pytest.mark.end_to_end
def test_trace_when_a_task_fails_and_is_resent_then_is_one(traced, collected, tmp_path):
    before, after, obstacle = (tmp_path / name for name in ("before", "after", "obstacle"))
    for folder in (before, after):
        folder.mkdir()
    obstacle.touch()
    first = traced.probe("leave_trace", str(before), str(obstacle))
    with traced.reached():
        result = (first | traced.probe("follow", str(after))).apply_async()
    assert eventually(lambda: traced.dead() == 1), traced.log()
    obstacle.unlink()
    Commands(traced).run("dlq", "resend", traced.queue.name, "--id", result.parent.id)
    assert eventually(lambda: notes(after)), traced.log()

    trace_id = collected.trace_of("run/library.probes.follow")
    sent, *attempts = collected.spans(trace_id, "leave_trace")
    assert (sent.name, sent.kind, sent.parent_span_id) == ("apply_async/library.probes.leave_trace", 4, b"")
    assert outcomes(attempts) == [(1, "retrying"), (2, "retrying"), (3, "dead_lettered"), (1, "succeeded")]
    assert {span.parent_span_id for span in attempts} == {sent.span_id}
    assert [span.status.code for span in attempts] == [2, 2, 2, 0]
    assert "is still there" in attempts[0].status.message
    assert [event.name for event in attempts[0].events] == ["exception"]
    queue = traced.contract.celery_name(traced.queue)
    assert {about(span)["messaging.destination.name"] for span in (sent, *attempts)} == {queue}
    sent_next, ran_next = collected.spans(trace_id, "follow")
    assert (sent_next.parent_span_id, ran_next.parent_span_id) == (attempts[-1].span_id, sent_next.span_id)
    assert about(ran_next)["messaging.message.id"] == result.id
    lines = [json.loads(line) for line in traced.log().splitlines() if line.startswith("{")]
    ended = [line for line in lines if line.get("task_id") == result.parent.id and "outcome" in line]
    assert [line["span_id"] for line in ended] == [span.span_id.hex() for span in attempts]
    assert {line["trace_id"] for line in ended} == {trace_id}
    resources = [resource.attributes for resource, _ in collected.received]
    found = {each.key: each.value.string_value for attributes in resources for each in attributes}
    assert (found["service.name"], found["deployment.environment.name"]) == (CONTRACT["service"], "development")


@pytest.mark.end_to_end
def test_trace_when_a_task_retries_in_a_chord_then_is_one(traced, collected, tmp_path):
    steps = [traced.probe("retry_in", str(tmp_path), 1), traced.probe("leave_trace", str(tmp_path))]
    kind, last = ("chord", "return_given") if HAS_RESULTS else ("group", "leave_trace")
    with traced.reached():
        if HAS_RESULTS:
            chord(steps, traced.probe("return_given"), app=traced.app).apply_async(MessageGroupId="g")
        else:
            group(steps, app=traced.app).apply_async(MessageGroupId="g")
    retry = "library.probes.retry_in"
    trace_id = collected.trace_of(f"apply_async/{kind}")
    assert eventually(lambda: len(collected.spans(trace_id, f"run/{retry}")) == 2), traced.log()
    assert eventually(lambda: collected.spans(trace_id, f"run/library.probes.{last}")), traced.log()
    first, second = collected.spans(trace_id, f"run/{retry}")
    _, again = collected.spans(trace_id, f"apply_async/{retry}")
    assert (again.parent_span_id, second.parent_span_id) == (first.span_id, again.span_id)
    assert outcomes([first, second]) == [(1, "retry_requested"), (1, "succeeded")]
    assert not collected.spans(trace_id, "chord_unlock")


@pytest.mark.end_to_end
def test_trace_when_a_process_dies_then_has_a_span_of_that_attempt(traced, collected, tmp_path):
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    traced.send("die_while", str(tmp_path), str(obstacle))
    trace_id = collected.trace_of("run/library.probes.die_while")  # From the process that stored its outcome.
    obstacle.unlink()
    assert eventually(lambda: outcomes(collected.spans(trace_id, "run/"))[-1][1] == "succeeded"), traced.log()
    sent, died, *_ = attempts = collected.spans(trace_id)
    assert outcomes([died]) == [(1, "retrying")]
    assert "WorkerLostError" in died.status.message
    assert {span.parent_span_id for span in attempts[1:]} == {sent.span_id}


@pytest.mark.end_to_end
def test_trace_when_a_worker_is_killed_then_goes_on_with_the_redelivery(traced, collected, tmp_path):
    traced.send("stay", str(tmp_path), 2)
    assert eventually(lambda: notes(tmp_path)), traced.log()
    traced.workers.pop(traced.worker.name).kill()
    traced.start_worker(label="second", OTEL_BSP_SCHEDULE_DELAY="60000")  # It exports when it stops.

    def has_succeeded():  # The killed worker may have left messages of earlier tests, too.
        lines = traced.log("second").splitlines()
        return any('"library.probes.stay"' in line and '"succeeded"' in line for line in lines)

    assert eventually(has_succeeded), traced.log("second")
    traced.stop_workers(warm_seconds=60)
    trace_id = collected.trace_of("run/library.probes.stay")
    sent, attempt = collected.spans(trace_id)
    assert outcomes([attempt]) == [(2, "succeeded")]
    assert attempt.parent_span_id == sent.span_id


# In this process, or one of its own


@pytest.fixture
def finished():
    """An exporter that keeps the spans of this process, and what makes them."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = module("tracing").chosen(TRACING, "test")
    spans.__dict__["_tracer"] = provider.get_tracer("test")
    return exporter, spans


def request(**headers):
    return {"id": "1", "root_id": "0", "delivery_info": {"routing_key": "q", "receive_count": 1}, **headers}


def test_span_when_sending_raises_then_ends_and_is_no_longer_current(finished):
    exporter, spans = finished
    with pytest.raises(ValueError, match="refused"), spans.sending("t", "q", {"task_id": "1"}):
        raise ValueError("refused")
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert not trace.get_current_span().get_span_context().is_valid


def test_attempts_when_nothing_traced_the_sender_then_share_a_trace(finished):
    exporter, spans = finished
    for headers in ({}, {"traceparent": "nonsense"}, {"traceparent": 7, "tracestate": ["a"], "baggage": {}}):
        with spans.attempt("t", request(**headers)):
            pass
    assert len({(span.context.trace_id, span.parent.span_id) for span in exporter.get_finished_spans()}) == 1


def test_polling_of_a_chord_when_traced_then_hands_the_trace_on(finished):
    exporter, spans = finished
    headers = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    options = {"task_id": "2"}
    with spans.attempt("celery.chord_unlock", request(**headers)), spans.sending("celery.chord_unlock", "q", options):
        assert options["headers"] == headers
    assert exporter.get_finished_spans() == ()


def test_error_when_it_cannot_be_shown_then_the_span_ends(finished):
    exporter, spans = finished
    verdict = module("delivery").Verdict(module("delivery").Action.RELEASE, "retrying")
    with spans.attempt("t", request()) as settle:
        settle(verdict, BadReprError())
    (span,) = exporter.get_finished_spans()
    assert "its repr raised" in span.status.description


def test_trace_id_when_the_header_is_invalid_then_is_no_log_field():
    fields = module("logs").task_fields
    headers = [None, 7, "00-zz", f"00-{'ab' * 16}-{'cd' * 8}-01"]
    found = [fields("t", module("delivery").Context(request(traceparent=each))).get("trace_id") for each in headers]
    assert found == [None, None, None, "ab" * 16]


def python(code, tmp_path, tracing, **variables):
    """Run Python in a process of its own, on a contract with or without tracing."""
    path = tmp_path / "contract.json"
    path.write_text(json.dumps({**json.loads(FAST_CONTRACT.read_text()), "tracing": tracing}), encoding="utf-8")
    environment = {**os.environ, **PATH, "CONTRACT_FILE": str(path), **variables}
    command = (sys.executable, "-c", PREPARE + code)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


PREPARE = f"""
import sys, time
from celery_aws import service
service.use("{CONTRACT["package"]}")
"""


def test_opentelemetry_when_tracing_is_off_then_is_not_imported(tmp_path):
    # redis imports a part of it where it is installed.
    code = "sys.modules['opentelemetry'] = None\nimport celery_aws.worker, celery_aws.consumer\n"
    code += "service.app().loader.import_default_modules(); print([n for n in sys.modules if 'opentelemetry' in n])"
    assert python(code, tmp_path, tracing=False).stdout == "['opentelemetry']\n"
    assert "TracingUnavailableError" in python(code, tmp_path, tracing=True).stderr


def test_worker_when_opentelemetry_is_not_installed_then_does_not_start(tmp_path):
    code = "sys.modules['opentelemetry.sdk'] = None\nfrom celery_aws import run_command\n"
    code += f"sys.argv[1:] = ['worker', {contract.workers[0].name!r}]\nrun_command({CONTRACT['package']!r})"
    ended = python(code, tmp_path, tracing=True)
    assert ended.returncode != 0
    assert "contract.json has tracing" in ended.stderr
    assert f"{CONTRACT['service']}[tracing]" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_process_when_the_collector_does_not_answer_then_ends_soon(tmp_path):
    code = "spans = service.app().tracing\nbegan = time.monotonic()\nwith spans.together('chord'): pass\n"
    code += "print(time.monotonic() - began, flush=True)"
    with collector(answers=False) as silent:
        began = time.monotonic()
        ran = python(code, tmp_path, tracing=True, **silent.variables)
        assert time.monotonic() - began < 15
    assert float(ran.stdout) < 1, ran.stderr
    assert [span.name for _, span in silent.received] == ["apply_async/chord"]
