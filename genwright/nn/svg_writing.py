"""Writing: what is asked of a model of drawings becomes strokes, word by word, and files."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.errors import DataError, UsageError
from genwright.core.model import Request
from genwright.core.run import write_text
from genwright.media.picture import rasterise, save_picture
from genwright.media.strokes import WORDS, Grammar, svg_of

from .answers import seed_of
from .captions import words_of
from .looks import DRAWN, SIDE
from .small_lm import Cache, drawn
from .svg_options import AT_ONCE, DrawingOptions

_APART = 1_000_003  # between the seeds of candidates
_CANDIDATES = 64  # where looks are known


@dataclass(frozen=True)
class Wish:
    """One drawing to write: the `number`-th of its request."""

    number: int
    how: DrawingOptions
    words: str  # as they are understood
    seed: int

    @property
    def count(self) -> int:
        """How many are written for one that is kept."""
        return self.how.candidates or 1

    def candidates(self) -> list[Wish]:
        """Each by chance of its own."""
        return [replace(self, seed=self.seed + _APART * k) for k in range(self.count)]


@dataclass(frozen=True)
class Written:
    """A drawing's words, and how sure the model was of them."""

    words: list[int]
    logprob: float  # nats, of the words as they were chosen: after guidance, before temperature
    copies: int = 0  # other candidates that were passed over, as nearly drawings that were taught

    @property
    def ease(self) -> float:
        """Mean of its words' log-probabilities: what a model is sure of looks clean."""
        return self.logprob / len(self.words)


def draw(model: Any, request: Request) -> Iterator[Part]:
    """Drawings as files; in `meta` seed, count of words, log-probability, and as what the words were understood; at
    last a `finish_reason`. A file is an SVG, or a picture where the request names one (.png). Raises UsageError for
    what cannot be asked."""
    wishes = _wishes(model, request)
    files = request.files(len(wishes), ".svg")
    for wish, file, written in zip(wishes, files, written_best(model, wishes), strict=True):
        yield _part(wish, file, written)
    yield Part(meta={"finish_reason": "stop"})


def draw_many(model: Any, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
    """Answers of many requests, written together."""
    wanted = []
    for index, request in enumerate(requests):
        wishes = _wishes(model, request)
        wanted += [(index, *pair) for pair in zip(wishes, request.files(len(wishes), ".svg"), strict=True)]
    parts: list[Part] = []
    made = written_best(model, [wish for _, wish, _ in wanted])
    for (index, wish, file), written in zip(wanted, made, strict=True):
        parts.append(_part(wish, file, written))
        if len(parts) == wish.how.n:
            yield index, Message("assistant", tuple(parts))
            parts = []


def written_best(model: Any, wishes: Sequence[Wish]) -> Iterator[Written]:
    """The best of each wish's candidates; no more than AT_ONCE are written together."""
    some: list[tuple[Wish, ...]] = []
    for place, wish in enumerate(wishes):
        some.append(tuple(wish.candidates()))
        if place + 1 == len(wishes) or sum(map(len, some)) + wishes[place + 1].count > AT_ONCE:
            made = iter(write(model, [one for each in some for one in each]))
            yield from (_best(model, each[0].words, [next(made) for _ in each]) for each in some)
            some = []


def _best(model: Any, words: str, candidates: Sequence[Written]) -> Written:
    """The candidate that is likeliest, word by word; where the model knows looks, likeliest and most like its words
    (the sum of both, each by its spread among the candidates), near copies of what was taught being passed over. If
    all are, the one that is least so."""
    worth = np.array([one.ease for one in candidates])
    if not (model.config.looks and len(candidates) > 1):
        return candidates[int(worth.argmax())]
    drawings = [svg_of(one.words) for one in candidates]
    looks, asked = model.module.looks, model.reader([words] * len(drawings))
    like = looks.likeness([rasterise(one, SIDE) for one in drawings], asked)
    worth = sum((one - one.mean()) / max(one.std(), 1e-6) for one in (worth, like))
    new = looks.newness([rasterise(one, DRAWN) for one in drawings])
    best = candidates[int(np.where(new >= 0, worth, new - 1e3).argmax())]
    return replace(best, copies=int((new < 0).sum()))


def write(model: Any, wishes: Sequence[Wish]) -> list[Written]:
    """The words of each wish, all written together. Each draws from its own seed."""
    grammars = [Grammar(model.config.longest) for _ in wishes]
    chances = [random.Random(wish.seed) for wish in wishes]
    found: list[list[int]] = [[] for _ in wishes]
    sums = [0.0] * len(wishes)
    with model.answering() as net:
        told, guided = _told(model, net, wishes)
        live = list(range(len(wishes)))
        cache = Cache(net, len(told), model.device)
        before = [WORDS] * len(wishes)
        while live:
            logits = _next(cache, before, [grammars[i] for i in live], told, guided)
            scales = torch.tensor([[wishes[i].how.temperature, wishes[i].how.top_p, chances[i].random()] for i in live])
            before, likely = drawn(logits, *scales.to(logits).unbind(1))
            for i, word, chance in zip(live, before, likely, strict=True):
                grammars[i].put(word)
                found[i].append(word)
                sums[i] += chance
            stay = [place for place, i in enumerate(live) if not grammars[i].is_done]
            if len(stay) < len(live):
                again = [place + len(live) for place in stay] if guided is not None else []
                rows = torch.tensor([*stay, *again], dtype=torch.long, device=model.device)
                cache.keep(rows)
                told, guided = told[rows], None if guided is None else guided[rows[: len(stay)]]
                live, before = [live[place] for place in stay], [before[place] for place in stay]
    return [Written(*one) for one in zip(found, sums, strict=True)]


# -- word by word ------------------------------------------------------------------------------------------------------


def _told(model: Any, net: Any, wishes: Sequence[Wish]) -> tuple[Tensor, Tensor | None]:
    """The captions (B, d) and, where one asks for guidance, as many rows that are told nothing, and by how much."""
    strength = torch.tensor([wish.how.guidance for wish in wishes], device=model.device)
    captions = torch.from_numpy(model.reader([wish.words for wish in wishes])).to(model.device)
    silent = torch.zeros(len(wishes), dtype=torch.bool, device=model.device)
    told = net.told(captions, silent)
    if all(wish.how.guidance == 1 for wish in wishes):
        return told, None
    return torch.cat([told, net.told(captions, ~silent)]), strength


def _next(cache: Cache, before: list[int], grammars: Sequence[Grammar], told: Tensor, guided: Tensor | None) -> Tensor:
    """Logits (B, WORDS) of the next word (Ho & Salimans 2022 for the guidance)."""
    known = torch.tensor([[g.slot, g.x, g.y, g.low, g.high] for g in grammars]).to(told.device)
    words = torch.tensor(before).to(told.device)
    if guided is not None:
        known, words = torch.cat([known, known]), torch.cat([words, words])
    slot, x, y, low, high = known.unbind(1)
    logits = cache.next(words, (slot, x, y), told).masked_fill(~allowed(low, high), -torch.inf)
    if guided is None:
        return logits
    with_words, without = logits.log_softmax(-1).chunk(2)
    gain = (with_words - without).masked_fill(with_words.isinf(), 0.0)
    return (without + guided[:, None] * gain).masked_fill(with_words.isinf(), -torch.inf)


def allowed(low: Tensor, high: Tensor) -> Tensor:
    """(N, WORDS): the words from `low` to `high`."""
    words = torch.arange(WORDS, device=low.device)
    return (words >= low[:, None]) & (words <= high[:, None])


# -- wishes and files --------------------------------------------------------------------------------------------------


def _wishes(model: Any, request: Request) -> list[Wish]:
    """What a request asks for, one entry a drawing."""
    how = request.options_as(DrawingOptions)
    if how.candidates is None and model.config.looks:
        how = how.model_copy(update={"candidates": _CANDIDATES})
    words = words_of(request.messages)
    if not words.strip():
        raise UsageError("There is nothing to draw: the request has no words.", "Say what is to be seen.")
    if odd := [part.kind for message in request.messages for part in message.parts if part.kind != "text"]:
        raise UsageError(f"The request holds a part of kind {odd[0]}; drawings are made from words.", "Leave it out.")
    seed, words = seed_of(request), model.understood(words.strip(), how.nearest)
    return [Wish(number, how, words, seed + number) for number in range(how.n)]


def _part(wish: Wish, file: Path, written: Written) -> Part:
    how, is_svg = wish.how, file.suffix.lower() == ".svg"
    size = how.size or (24 if is_svg else 256)
    svg = svg_of(written.words, colour=how.colour, stroke_width=how.stroke_width, size=size)
    try:
        if is_svg:
            write_text(file, svg)
        else:
            save_picture(rasterise(svg, size), file, metadata={})
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror or error}.", "Choose another place.") from None
    meta = {"number": wish.number, "seed": wish.seed, "words": len(written.words), "logprob": written.logprob,
            "understood": wish.words, **({"near_copies": written.copies} if written.copies else {})}  # fmt: skip
    return Part(kind="image", path=file, meta=meta)
