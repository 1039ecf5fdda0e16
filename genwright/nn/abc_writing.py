"""Writing: what is asked of a model of tunes becomes notes, word by word, and then ABC, sound, MIDI and a score."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.errors import DataError, UsageError
from genwright.core.model import Request
from genwright.media.abc import Tune, read_tune
from genwright.media.score import (
    END,
    KINDS,
    LENGTH,
    REST,
    SIGN,
    TOLD,
    WORDS,
    Grammar,
    abc_of,
    closed,
    nearest_bars,
    told_by,
    told_of,
    tune_of,
    word_of,
    words_of_tune,
)
from genwright.media.tune_words import facts_in, facts_of, key_facts

from .abc_options import TuneOptions
from .answers import seed_of
from .captions import words_of
from .small_lm import Cache, drawn

AT_ONCE = 64  # tunes written together
_BarNotes = tuple[tuple[int, int], ...]  # (length, word) of each note


@dataclass
class Script:
    """What of a tune is given: of each bar its notes, or None for notes that are to be written, and the sign after it.
    `ends` says that the tune ends there."""

    bars: Sequence[tuple[_BarNotes | None, int]] = ()
    ends: bool = False
    bar: int = 0
    note: int = 0

    @property
    def is_over(self) -> bool:
        return self.bar == len(self.bars)

    def next(self, grammar: Grammar) -> int | None:
        """The word that must come, or None where one is to be written."""
        if self.is_over:
            return END if self.ends else None
        notes, sign = self.bars[self.bar]
        if notes is None and (grammar.left > 0 or grammar.triplet):
            return None
        if notes is not None and self.note < len(notes):
            length, word = notes[self.note]
            if grammar.length != length:
                return LENGTH + length
            self.note += 1
            return word
        self.bar, self.note = self.bar + 1, 0
        return sign


@dataclass(frozen=True)
class Wish:
    """One tune to write: the `number`-th of its request, with what is `told` of it."""

    number: int
    how: TuneOptions
    told: dict[str, Any]
    seed: int
    script: Script = field(default_factory=Script)


@dataclass(frozen=True)
class Written:
    """`words` of the notes, with the end; `is_cut` when there was no room for more."""

    told: dict[str, Any]
    words: list[int]
    logprob: float  # nats, of the words that were chosen: before temperature
    chosen: int  # how many were
    is_cut: bool

    def tune(self, title: str) -> Tune:
        return tune_of(self.told, self.words, title=title)


def write(model: Any, wishes: Sequence[Wish]) -> list[Written]:
    """The words of each wish, all written together. Each draws from its own seed."""
    rows = [_Row(wish) for wish in wishes]
    with model.answering() as net:
        live, cache = list(range(len(rows))), Cache(net, len(rows), model.device)
        before = [WORDS] * len(rows)
        while live:
            some = [rows[i] for i in live]
            logits = _next(net, cache, before, some)
            scales = torch.tensor([[row.wish.how.temperature, row.wish.how.top_p, row.chance.random()] for row in some])
            words, likely = drawn(logits, *scales.to(logits).unbind(1))
            before = [row.put(word, chance) for row, word, chance in zip(some, words, likely, strict=True)]
            full = cache.place == model.config.longest
            stay = [place for place, row in enumerate(some) if not (row.grammar.is_done or full)]
            if len(stay) < len(live):
                cache.keep(torch.tensor(stay, dtype=torch.long, device=model.device))
                live, before = [live[place] for place in stay], [before[place] for place in stay]
    return [row.written() for row in rows]


class _Row:
    """One tune on its way."""

    def __init__(self, wish: Wish):
        self.wish, self.chance = wish, random.Random(wish.seed)
        self.grammar = Grammar(strict=wish.how.whole_bars)
        self.words, self.logprob, self.chosen = list[int](), 0.0, 0
        self.forced: int | None = None

    def look(self) -> Any:
        """Which words may come: numpy bool (WORDS,)."""
        told = self.wish.told
        if len(self.grammar.told) < len(KINDS):
            kind = next((kind for kind in KINDS if kind in told and kind not in self.grammar.told), None)
            self.forced = word_of(kind, told[kind]) if kind else None
        else:
            self.forced = self.wish.script.next(self.grammar)
        if self.forced is not None:
            return _only(self.forced)
        allowed = self.grammar.allowed
        return allowed if self.wish.script.is_over or len(self.grammar.told) < len(KINDS) else allowed & _NO_SIGNS

    def put(self, word: int, chance: float) -> int:
        if self.forced is None and word < TOLD:
            self.logprob, self.chosen = self.logprob + chance, self.chosen + 1
        self.grammar.put(word)
        if word < TOLD:
            self.words.append(word)
        return word

    def written(self) -> Written:
        done = self.grammar.is_done
        words = self.words if done else closed(self.words)
        return Written(dict(self.grammar.told), words, self.logprob, self.chosen, not done)


_NO_SIGNS = np.ones(WORDS, bool)
_NO_SIGNS[SIGN:LENGTH] = _NO_SIGNS[END] = False


def _only(word: int) -> Any:
    mask = np.zeros(WORDS, bool)
    mask[word] = True
    return mask


def _next(net: Any, cache: Cache, before: list[int], rows: Sequence[_Row]) -> Tensor:
    """Logits (B, WORDS) of the next word, minus infinity where none may stand."""
    device = cache.layers[0].device
    known = torch.tensor([row.grammar.known for row in rows], device=device)
    words = torch.tensor(before, device=device)
    logits: Tensor = net(words, known.unbind(1), torch.full_like(words, cache.place), None, cache.attend)
    cache.place += 1
    allowed = torch.from_numpy(np.stack([row.look() for row in rows])).to(device)
    return logits.masked_fill(~allowed, -torch.inf)


# -- wishes ------------------------------------------------------------------------------------------------------------


def play(model: Any, request: Request) -> Iterator[Part]:
    raise NotImplementedError


def play_many(model: Any, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
    raise NotImplementedError
