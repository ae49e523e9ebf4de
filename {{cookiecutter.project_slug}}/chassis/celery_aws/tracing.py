"""Traces with OpenTelemetry, for a service whose contract has `tracing`. Without it, nothing of that is imported.

A message carries its trace in the headers `traceparent` and `tracestate`: through redeliveries, the
dead-letter queue and a redrive.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from . import errors
from .contract import Contract

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

Settle = Callable[[Any, BaseException | None], None]
"""Takes the verdict on an attempt, and the error to report with it."""


class Tracing:
    """What a service without `tracing` has: no spans."""

    def sending(self, name: str, queue: str, options: dict[str, Any]) -> AbstractContextManager[None]:
        """Return the span of a message that is being sent; it adds its trace to the headers in `options`."""
        return contextlib.nullcontext()

    def headers(self) -> dict[str, str]:
        """Return the headers that carry the active span, for a message that is sent later."""
        return {}

    def resumed(self, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """Return a block in which the span that headers carry is the active one."""
        return contextlib.nullcontext()

    def together(self, name: str) -> AbstractContextManager[None]:
        """Return the span of a group or chord that is being sent, so that all of it is in one trace."""
        return contextlib.nullcontext()

    def attempt(self, name: str, request: Mapping[str, Any]) -> AbstractContextManager[Settle]:
        """Return the span of an attempt, by the task's name and the headers of its message."""
        return contextlib.nullcontext(lambda verdict, error: None)


def chosen(contract: Contract, environment: str) -> Tracing:
    """Return what makes the spans of a service.

    Raises:
        TracingUnavailableError: the contract has `tracing`, but OpenTelemetry is not installed.
    """
    if not contract.tracing:
        return Tracing()
    try:
        spans = importlib.import_module(f"{__package__}.spans")
    except ImportError as error:
        raise errors.TracingUnavailableError(
            f"contract.json has tracing, but OpenTelemetry is not installed: {error}. In the service's project, run "
            f"`make lock` and `make install`; elsewhere install {contract.service}[tracing]"
        ) from error
    made: Tracing = spans.Spans(contract, environment)
    return made


def trace_id_of(request: Any) -> str | None:
    """Return the trace id in the headers of a message, if they have a valid one."""
    found = _TRACEPARENT.fullmatch(str(getattr(request, "traceparent", None)))
    return found[1] if found else None


def current_ids() -> dict[str, str]:
    """Return `trace_id` and `span_id` of the active span; nothing if there is none or OpenTelemetry is not in use."""
    current_span = getattr(sys.modules.get("opentelemetry.trace"), "get_current_span", None)
    if current_span is None or not (context := current_span().get_span_context()).is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
