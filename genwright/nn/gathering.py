"""Gathering: requests that wait at one moment and go the same way are answered in one batch, whoever asked them.

A server asks from many threads. One thread works: it takes what waits, as long as there is something, and each asker
hears of its own. Who stops listening is left out of the next batch, and a batch that nobody listens to any more ends
before its next step.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from genwright.core.content import Part
from genwright.core.model import Request

_MOMENT = 0.25  # seconds


@dataclass(eq=False)
class _Asked:
    """Pieces of one request that are made together, and who listens for them."""

    pieces: Sequence[Any]
    files: Sequence[Path]
    heard: queue.SimpleQueue[Part | BaseException | None] = field(default_factory=queue.SimpleQueue)
    gone: bool = False


class Gathered:
    """A model that many threads may ask at once; all else of it is the model's own.

    `plan` says what pieces a request asks for; those of one `way` can be made together. `make` makes at most `at_once`
    of them into their files: a part without file is of all of them (progress), one with a file of whose file it is,
    under its own name or with ".step-…" behind it. The requests' folders must differ, as temporary ones do.
    """

    def __init__(
        self, inner: Any, plan: Callable[[Request], Sequence[Any]],
        make: Callable[[Sequence[Any], Sequence[Path]], Iterator[Part]], at_once: int, suffix: str,
    ):  # fmt: skip
        self.inner, self.plan, self.make, self.at_once, self.suffix = inner, plan, make, at_once, suffix
        self.parallel = at_once  # requests: of one piece each they are one batch
        self._waiting: deque[_Asked] = deque()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "gathering")

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # it is not there yet
            raise AttributeError(name)
        return getattr(self.inner, name)

    def generate(self, request: Request) -> Iterator[Part]:
        """As the model alone would answer: parts as they are made, at last a `finish_reason`. Raises what it raises."""
        pieces = self.plan(request)
        files = request.files(len(pieces), self.suffix)
        for start in range(0, len(pieces), self.at_once):
            yield from self._made(pieces[start : start + self.at_once], files[start : start + self.at_once])
        yield Part(meta={"finish_reason": "stop"})

    def _made(self, pieces: Sequence[Any], files: Sequence[Path]) -> Iterator[Part]:
        asked = _Asked(pieces, files)
        with self._lock:
            self._waiting.append(asked)
        self._worker.submit(self._work)  # once for each that waits: one may find that another's turn took it along
        try:
            while (said := _heard(asked)) is not None:
                if isinstance(said, BaseException):
                    raise said
                yield said
        finally:
            asked.gone = True

    def _work(self) -> None:
        some = self._next()
        with _Telling(some):
            if not some:
                return
            owners = {_place(file): one for one in some for file in one.files}
            pieces, files = [p for one in some for p in one.pieces], [f for one in some for f in one.files]
            parts: Any = self.make(pieces, files)
            try:
                for part in parts:
                    for one in some if part.path is None else [owners[_place(part.path)]]:
                        one.heard.put(part)
                    if all(one.gone for one in some):
                        return
            finally:
                parts.close()

    def _next(self) -> list[_Asked]:
        """Of what waits, the first and all that go its way, as far as there is room."""
        with self._lock:
            there = [one for one in self._waiting if not one.gone]
            some: list[_Asked] = []
            for one in there:
                count = sum(len(other.pieces) for other in some) + len(one.pieces)
                if not some or (one.pieces[0].way == some[0].pieces[0].way and count <= self.at_once):
                    some.append(one)
            self._waiting = deque(one for one in there if one not in some)
        return some


@dataclass
class _Telling:
    """Whoever listens hears at the end that it is the end, or what went wrong."""

    some: Sequence[_Asked]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        for one in self.some:
            one.heard.put(error)
        return True


def _heard(asked: _Asked) -> Part | BaseException | None:
    """What was said, or after a moment a part that says nothing: whoever waits for their turn may leave meanwhile."""
    try:
        return asked.heard.get(timeout=_MOMENT)
    except queue.Empty:
        return Part()


def _place(file: Path) -> tuple[Path, str]:
    return file.parent, file.stem.partition(".step-")[0]
