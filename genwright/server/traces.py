"""Traces: OpenTelemetry spans with its names for HTTP and for generative AI, where the operator asks for them.

Spans are made once a request has ended, from the figures that its log line has too: an answer never waits for them,
and there is nothing in them that was asked or answered. What we do belongs to the caller's trace (`traceparent`).
Attributes follow OpenTelemetry's semantic conventions (HTTP stable, GenAI in development).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from genwright.core import MissingExtra, UsageError

from .meters import Asked, Facts

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_OPERATIONS = {"completions": "text_completion", "embeddings": "embeddings"}  # by the route's last word; else chat


class Tracer:
    """Sends spans to `exporter`, in the background and in batches."""

    def __init__(self, exporter: Any, *, at_once: bool = False):
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        from genwright import __version__

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "genwright"}
        self.provider = TracerProvider(resource=Resource.create(named | {"service.version": __version__}))
        self.provider.add_span_processor((SimpleSpanProcessor if at_once else BatchSpanProcessor)(exporter))
        self.tracer = self.provider.get_tracer("genwright", __version__)
        self.context = TraceContextTextMapPropagator()

    def trace(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        method: str,
        route: str,
        status: int,
        seconds: float,
        facts: Facts,
        request_id: str = "",
    ) -> None:
        """The spans of a request that has just ended: one of HTTP, and under it one for each thing asked of a model."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        said = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in _CONTEXT}
        ended = time.time_ns()
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "http.response.header.x-request-id": (request_id,),
        }
        if status >= 500:
            attributes["error.type"] = str(status)
        span = self.tracer.start_span(
            f"{method} {route}", self.context.extract(said), SpanKind.SERVER, attributes,
            start_time=ended - int(seconds * 1e9),
        )  # fmt: skip
        _mark(span, failed=status >= 500)
        for asked in facts.asked:
            inner = self.tracer.start_span(
                f"{_operation(route)} {asked.model}", set_span_in_context(span), SpanKind.CLIENT,
                _attributes(asked, route), start_time=asked.ended - int(asked.seconds * 1e9),
            )  # fmt: skip
            _mark(inner, failed=asked.status == "error")
            inner.end(asked.ended)
        span.end(ended)

    def close(self) -> None:
        """Send what is left."""
        self.provider.shutdown()


_CONTEXT = (b"traceparent", b"tracestate")


def tracer() -> Tracer | None:
    """A tracer when the environment asks for one: `OTEL_EXPORTER_OTLP_ENDPOINT`, or `OTEL_TRACES_EXPORTER=console`.

    Raises MissingExtra when it asks and the packages are not here, UsageError for an exporter that we do not know.
    """
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "otlp" if any(map(os.environ.get, _ENDPOINTS)) else "none")
    if wanted == "none" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        if wanted == "console":
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            return Tracer(ConsoleSpanExporter(out=sys.stderr))
        if wanted == "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            return Tracer(OTLPSpanExporter())
    except ImportError as error:
        raise MissingExtra(error.name or "opentelemetry-sdk", "traces") from None
    raise UsageError(f"OTEL_TRACES_EXPORTER is {wanted!r}.", "It may be otlp, console or none.")


def _attributes(asked: Asked, route: str) -> dict[str, Any]:
    found = {"gen_ai.operation.name": _operation(route), "gen_ai.provider.name": "genwright",
             "gen_ai.request.model": asked.model, "gen_ai.response.model": asked.model,
             "gen_ai.usage.input_tokens": asked.prompt_tokens, "gen_ai.usage.output_tokens": asked.completion_tokens,
             "gen_ai.response.finish_reasons": (asked.status,)}  # fmt: skip
    return found | ({"error.type": "_OTHER"} if asked.status == "error" else {})


def _operation(route: str) -> str:
    return "chat" if "/chat/" in route else _OPERATIONS.get(route.rpartition("/")[2], "chat")


def _mark(span: Any, *, failed: bool) -> None:
    from opentelemetry.trace import StatusCode

    if failed:
        span.set_status(StatusCode.ERROR)
