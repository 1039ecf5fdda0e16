"""Meters: what Prometheus scrapes. Names are vLLM's under our prefix, so that its dashboards need little change.

No label holds what somebody wrote: models go by the names under which they are served, paths by their templates,
methods and statuses are from closed lists.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
_GAP = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
_WHOLE = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
_HTTP = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_METHODS = {"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"}


@dataclass
class Asked:
    """One thing asked of a model: how it ended, how long it took, and when (nanoseconds since 1970)."""

    model: str
    status: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    ended: int


@dataclass
class Facts:
    """What a request came to, for its log line and its spans; `first` is seconds to the first token."""

    asked: list[Asked] = field(default_factory=list)
    first: float | None = None


here: ContextVar[Facts | None] = ContextVar("facts of the request that is being answered here", default=None)


class Meters:
    """Counts from any thread. A call costs one or two microseconds; `text` is for the scraper."""

    def __init__(self) -> None:
        disable_created_metrics()  # a start time beside each figure would double the page
        self.registry = CollectorRegistry()
        self._models: dict[str, _Of] = {}

        def of(kind: Any, name: str, text: str, *labels: str, **more: Any) -> Any:
            return kind(f"genwright_{name}", text, ["model_name", *labels], registry=self.registry, **more)

        self._kinds = {
            "running": of(Gauge, "num_requests_running", "Requests that a model is answering"),
            "first": of(Histogram, "time_to_first_token_seconds", "Time to the first token", buckets=_FIRST),
            "gap": of(Histogram, "inter_token_latency_seconds", "Time between tokens of an answer", buckets=_GAP),
            "whole": of(Histogram, "e2e_request_latency_seconds", "Time from asking to the end", buckets=_WHOLE),
            "prompt": of(Counter, "prompt_tokens", "Tokens read"),
            "completion": of(Counter, "generation_tokens", "Tokens written"),
        }
        self._ended = of(Counter, "requests", "Requests that models have answered, by how it ended", "status")
        self._memory = of(Gauge, "model_memory_bytes", "Memory that a loaded model takes")
        self._waiting = Gauge("genwright_num_requests_waiting", "Requests in the queue", registry=self.registry)
        self._http = Histogram(
            "http_server_request_duration_seconds", "Time of an HTTP request to the last byte of its answer",
            ["http_request_method", "http_route", "http_response_status_code"], buckets=_HTTP, registry=self.registry,
        )  # fmt: skip
        ProcessCollector(registry=self.registry)

    # -- what the desk tells -----------------------------------------------------------------------------------------

    def queue(self, waiting: int) -> None:
        self._waiting.set(waiting)

    def started(self, model: str) -> None:
        self._of(model).running.inc()

    def first_token(self, model: str, seconds: float) -> None:
        self._of(model).first.observe(seconds)
        facts = here.get()
        if facts is not None and facts.first is None:
            facts.first = seconds

    def token_gap(self, model: str, seconds: float) -> None:
        self._of(model).gap.observe(seconds)

    def finished(self, model: str, status: str, prompt_tokens: int, completion_tokens: int, seconds: float) -> None:
        """Once for each `started`, however it ended; `status` is one of few words (stop, length, aborted, error …)."""
        of = self._of(model)
        of.running.dec()
        of.prompt.inc(prompt_tokens)
        of.completion.inc(completion_tokens)
        of.whole.observe(seconds)
        self._ended.labels(model, status).inc()
        facts = here.get()
        if facts is not None:
            facts.asked.append(Asked(model, str(status), prompt_tokens, completion_tokens, seconds, time.time_ns()))

    # -- what others tell --------------------------------------------------------------------------------------------

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One HTTP request; `route` is its path's template."""
        self._http.labels(method if method in _METHODS else "_OTHER", route, status).observe(seconds)

    def text(self, memory: Mapping[str, int] | None = None) -> bytes:
        """Prometheus' text format; `memory` is bytes by loaded model, at this moment."""
        self._memory.clear()
        for model, size in (memory or {}).items():
            self._memory.labels(model).set(size)
        return generate_latest(self.registry)

    def _of(self, model: str) -> _Of:
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = _Of(**{name: kind.labels(model) for name, kind in self._kinds.items()})
        return found


@dataclass(frozen=True)
class _Of:
    """The meters of one model, found once: finding them costs more than turning them."""

    running: Gauge
    first: Histogram
    gap: Histogram
    whole: Histogram
    prompt: Counter
    completion: Counter
