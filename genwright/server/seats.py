"""Seats: a place in the fleet for one set of weights, how it fared, and how long it is left alone when it fails."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from .errors import Wrong
from .link import Link
from .registry import ENCODER, Served


@dataclass
class Patience:
    """After `most` failures in a row nothing is tried for a while, twice as long after each further one."""

    most: int
    first: float  # seconds
    longest: float
    failures: int = 0
    until: float = 0.0

    def failed(self) -> float:
        """Note a failure; seconds until the next try."""
        self.failures += 1
        over = self.failures - self.most
        wait = min(self.longest, self.first * 2.0 ** min(over, 30)) if over >= 0 else 0.0
        self.until = time.monotonic() + wait
        return wait

    def went_well(self) -> None:
        self.failures, self.until = 0, 0.0

    @property
    def wait(self) -> float:
        return max(0.0, self.until - time.monotonic())


@dataclass
class Seat:
    """A place for one set of weights, and how it fared. `link` is the process while it is in memory."""

    key: str
    served: Served  # the model whose weights they are
    wears: bool  # it is there for the adapters of that model
    link: Link | None = None
    opening: asyncio.Task[None] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)
    size: int = 0  # bytes, as last measured
    keep_alive: float | None = None  # seconds, when somebody said so for this time
    error: Exception | None = None  # why it could not be loaded
    loads: Patience = field(default_factory=lambda: Patience(1, 1.0, 60.0))
    crashes: Patience = field(default_factory=lambda: Patience(5, 5.0, 300.0))
    upstream: Patience = field(default_factory=lambda: Patience(5, 5.0, 60.0))

    def heard(self, failed: bool) -> None:
        """How an upstream fared with a request."""
        if failed:
            self.upstream.failed()
        else:
            self.upstream.went_well()

    @property
    def name(self) -> str:
        return f"{self.served.id} (adapters)" if self.wears else self.served.id

    def told(self, voices: dict[str, dict[str, str]]) -> dict[str, Any]:
        """What a worker is to open, with these adapters."""
        if self.served.source == ENCODER and self.served.embeds:
            return {"embedder": True}
        engine = dict(self.served.engine)
        if self.wears and "runner" in engine:
            engine["runner"] = "llama.cpp"  # the one that wears adapters
        return {"source": self.served.source, "engine": engine, "adapters": voices}

    def check_patience(self) -> None:
        """Raises why it could not be loaded a moment ago, or Wrong (503) that it is given a rest."""
        if self.error and self.loads.wait:
            raise self.error
        if wait := self.crashes.wait:
            raise Wrong(503, f"The process of {self.name} has ended {self.crashes.failures} times; it is tried again "
                        f"in {wait:.0f} s.", code="model_crashing",
                        headers={"Retry-After": f"{wait + 1:.0f}"})  # fmt: skip

    def check_upstream(self) -> None:
        """Raises Wrong (503) while an upstream is given a rest; then one request finds out whether it is back."""
        if wait := self.upstream.wait:
            raise Wrong(503, f"The upstream of {self.name} has failed {self.upstream.failures} times in a row; it is "
                        f"tried again in {wait:.0f} s.", code="upstream_unavailable",
                        headers={"Retry-After": f"{wait + 1:.0f}"})  # fmt: skip
        if self.upstream.failures >= self.upstream.most:
            self.upstream.until = time.monotonic() + self.upstream.first
