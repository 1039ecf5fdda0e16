"""Many askers of one model: who waits together is answered together, and who leaves holds up nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from genwright.core import ModelError, Part, Request, UsageError, user
from genwright.nn.gathering import Gathered


@dataclass(frozen=True)
class Piece:
    words: str
    way: int


@dataclass
class Maker:
    """Writes words into files, in as many steps as their way says, once the gate is open."""

    batches: list[list[str]] = field(default_factory=list)
    steps: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def plan(self, request: Request) -> list[Piece]:
        words = request.messages[0].text.split()
        if not words:
            raise UsageError("No words.")
        return [Piece(word, request.options["way"]) for word in words]

    def make(self, pieces: Sequence[Any], files: Sequence[Path]) -> Iterator[Part]:
        self.batches.append([piece.words for piece in pieces])
        self.gate.wait(5)
        for step in range(pieces[0].way):
            self.steps += 1
            if "bad" in self.batches[-1]:
                raise ModelError("It broke.")
            yield Part(meta={"progress": step + 1, "of": pieces[0].way})
        for piece, file in zip(pieces, files, strict=True):
            part = file.with_name(f"{file.stem}.step-1{file.suffix}")
            for path in (part, file):
                path.write_text(piece.words)
                yield Part("image", path=path)

    def shared(self, at_once: int = 4) -> Gathered:
        return Gathered(self, self.plan, self.make, at_once, ".txt")


def asked(words: str, way: int = 2) -> Request:
    return Request(messages=(user(words),), options={"way": way})


def said(parts: Iterator[Part]) -> str:
    """The words of the finished files."""
    return " ".join(p.path.read_text() for p in parts if p.path and ".step-" not in p.path.name)


def together(shared: Gathered, maker: Maker, *requests: Request) -> list[Any]:
    """What comes of requests that all wait while one is under way."""
    with ThreadPoolExecutor(len(requests) + 1) as pool:
        pool.submit(said, shared.generate(asked("first", 1)))
        while not maker.batches:
            time.sleep(0.005)
        done = []
        for count, request in enumerate(requests, 1):
            done.append(pool.submit(said, shared.generate(request)))
            while len(shared._waiting) < count:
                time.sleep(0.005)
        maker.gate.set()
        return [one.exception() or one.result() for one in done]


def test_what_waits_and_goes_one_way_is_made_together() -> None:
    maker = Maker()
    found = together(maker.shared(), maker, asked("a"), asked("b", 3), asked("c d"), asked("e f"), asked("g"))
    assert found == ["a", "b", "c d", "e f", "g"]
    assert maker.batches == [["first"], ["a", "c", "d", "g"], ["b"], ["e", "f"]]


def test_one_that_asks_for_more_than_fits_is_made_in_turns() -> None:
    maker = Maker()
    maker.gate.set()
    parts = list(maker.shared().generate(asked("a b c d e f")))
    assert said(iter(parts)) == "a b c d e f"
    assert maker.batches == [["a", "b", "c", "d"], ["e", "f"]]
    assert parts[-1].meta == {"finish_reason": "stop"}


def test_what_goes_wrong_is_told_to_those_whom_it_concerns() -> None:
    maker = Maker()
    found = together(maker.shared(), maker, asked("bad"), asked("near"), asked("far", 3))
    assert [str(one) for one in found] == ["It broke.", "It broke.", "far"]
    with pytest.raises(UsageError):
        next(maker.shared().generate(asked(" ")))


def test_who_leaves_the_queue_is_not_answered() -> None:
    maker = Maker()
    shared = maker.shared()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(said, shared.generate(asked("first")))
        while not maker.batches:
            time.sleep(0.005)
        with closing(shared.generate(asked("gone"))) as parts:
            assert next(parts) == Part(), "something comes, so that one may leave"
        maker.gate.set()
        assert first.result() == "first"
        assert pool.submit(said, shared.generate(asked("next"))).result() == "next"
    assert maker.batches == [["first"], ["next"]]


def test_what_nobody_listens_to_ends_before_its_next_step() -> None:
    maker = Maker()
    maker.gate.set()
    shared = maker.shared()
    with closing(shared.generate(asked("long", 10_000_000))) as parts:
        while not next(parts).meta:
            pass
    assert said(shared.generate(asked("next"))) == "next"
    assert maker.steps < 10_000_000


def test_all_else_is_the_models_own() -> None:
    maker = Maker()
    assert maker.shared().batches is maker.batches
    assert not hasattr(maker.shared(), "nothing")
    assert maker.shared(7).parallel == 7
