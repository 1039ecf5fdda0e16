"""A real server on a real port, around a tiny model or around one that says what a test wants."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from genwright.core import Part, Request
from genwright.server.errors import Wrong
from genwright.server.registry import Served
from genwright.server.routes import chat, models
from genwright.verbs.ask import Answerer

from .household import app_of, at_home, small_house


class Says:
    """A model that says the given pieces, slowly if told so, and remembers what it was asked and whether it ended."""

    def __init__(self, pieces: Sequence[str] = ("Hel", "lo."), *, pause: float = 0.0, fails: Exception | None = None):
        self.pieces, self.pause, self.fails = pieces, pause, fails
        self.asked: list[Request] = []
        self.running = self.most = self.closed = 0
        self.lock = threading.Lock()

    def generate(self, request: Request) -> Iterator[Part]:
        self.asked.append(request)
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            for piece in self.pieces:
                time.sleep(self.pause)
                yield Part(text=piece)
            if self.fails:
                raise self.fails
            yield Part(meta={"finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": len(self.pieces)})
        except GeneratorExit:
            self.closed += 1
            raise
        finally:
            with self.lock:
                self.running -= 1


class InProcess:
    """A desk, and all of a fleet that a chat needs, around one answerer in this process: `places` answers at once."""

    def __init__(self, answerer: Answerer, places: int):
        self.answerer, self.free = answerer, places

    def find(self, name: str, caller: Any = None) -> Any:
        if name != self.answerer.name:
            raise Wrong(404, f"There is no model {name!r} here.", param="model", code="model_not_found")
        return Served(name)

    def list(self, caller: Any = None) -> Sequence[Served]:
        return [Served(self.answerer.name)]

    def facts(self, served: Served) -> dict[str, Any]:
        return {}

    def gives(self, served: Served) -> str:
        return self.answerer.gives

    async def ask(self, caller: Any, name: str, request: Request, *, deadline: Any = None) -> AsyncGenerator[Part]:
        self.find(name)
        if not self.free:
            raise Wrong(429, "All places are taken.", code="queue_full", headers={"Retry-After": "1"})
        self.free -= 1
        options = {field: getattr(request, field) for field in request.model_fields_set - {"messages"}}
        parts = self.answerer.ask(request.messages, **options)
        try:
            while (part := await asyncio.to_thread(next, parts, None)) is not None:
                yield part
        finally:
            self.free += 1
            await asyncio.shield(asyncio.to_thread(_close, parts))


def _close(parts: Any) -> None:
    for _ in range(100):  # a step that is under way ends first
        try:
            parts.close()
            return
        except ValueError:
            time.sleep(0.05)


@contextmanager
def served(model: Any, *, name: str = "tiny", guards: Sequence[Any] = (), queue: int = 16) -> Iterator[str]:
    """The address of a server whose chat is answered by `model`, as many at once as it can and `queue` more."""
    desk = InProcess(Answerer(model, name, guards), int(getattr(model, "parallel", 1)) + queue)
    with TemporaryDirectory() as folder:
        house = small_house(Path(folder), fleet=desk, desk=desk)
        with at_home(app_of(house, chat, models)) as address:
            yield f"{address.removesuffix('/v1')}/v1"


def wait_until(true: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
