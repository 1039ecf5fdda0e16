"""Traces: what a collector receives, in OpenTelemetry's words and without contents."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from genwright.core import UsageError
from genwright.server.meters import Asked, Facts
from genwright.server.traces import Tracer, tracer

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def _traced(headers: list[tuple[bytes, bytes]], route: str, status: int, facts: Facts) -> list[Any]:
    kept = InMemorySpanExporter()
    tracer = Tracer(kept, at_once=True)
    tracer.trace(headers, "POST", route, status, 0.5, facts, "r1")
    tracer.close()
    return sorted(kept.get_finished_spans(), key=lambda span: span.kind.value)


def test_a_request_is_a_span_and_each_thing_asked_of_a_model_one_under_it() -> None:
    facts = Facts([Asked("tiny", "stop", 5, 2, 0.25, 2_000_000_000), Asked("tiny", "error", 5, 0, 0.1, 2_000_000_000)])
    outer, first, second = _traced([(b"traceparent", PARENT.encode())], "/v1/chat/completions", 200, facts)
    assert (outer.name, outer.kind) == ("POST /v1/chat/completions", SpanKind.SERVER)
    assert dict(outer.attributes) == {"http.request.method": "POST", "http.route": "/v1/chat/completions",
                                      "http.response.status_code": 200,
                                      "http.response.header.x-request-id": ("r1",)}  # fmt: skip
    assert f"{outer.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{outer.parent.span_id:016x}" == PARENT.split("-")[2]
    assert outer.end_time - outer.start_time == pytest.approx(0.5e9, rel=1e-3)
    assert first.parent.span_id == second.parent.span_id == outer.context.span_id
    assert (first.name, first.kind) == ("chat tiny", SpanKind.CLIENT)
    assert first.attributes["gen_ai.operation.name"] == "chat"
    assert first.attributes["gen_ai.usage.input_tokens"] == 5
    assert first.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert (first.start_time, first.end_time) == (1_750_000_000, 2_000_000_000)
    assert second.status.status_code is StatusCode.ERROR
    assert outer.resource.attributes["service.name"] == "genwright"


def test_operations_are_named_by_their_route() -> None:
    for route, name in (("/v1/completions", "text_completion"), ("/v1/embeddings", "embeddings"),
                        ("/v1/responses", "chat"), ("/v1/messages", "chat")):  # fmt: skip
        spans = _traced([], route, 500, Facts([Asked("m", "stop", 1, 1, 0.1, 10**9)]))
        assert spans[1].name == f"{name} m"
        assert spans[0].status.status_code is StatusCode.ERROR


def test_nobody_is_traced_who_has_not_asked_for_it(monkeypatch: Any) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    assert tracer() is None
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(UsageError, match="zipkin"):
        tracer()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    found = tracer()
    assert found
    found.close()
