"""Writing: what is asked of a model of tunes becomes notes, word by word."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.errors import DataError, UsageError
from genwright.core.model import Request
from genwright.media.abc import Tune, bar_ticks, read_tune
from genwright.media.engraving import PICTURES, engraver
from genwright.media.performance import has_soundfont
from genwright.media.score import (
    END,
    KINDS,
    LENGTH,
    REST,
    SIGN,
    TICKS,
    TOLD,
    WORDS,
    Grammar,
    closed,
    nearest_bars,
    told_of,
    tune_of,
    word_of,
    words_of_tune,
)
from genwright.media.tune_words import USUAL_METRES, facts_in, facts_of, key_facts

from .abc_files import files_of
from .abc_options import TuneOptions
from .answers import seed_of
from .captions import words_of
from .reciting import Sayings
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
    sayings: Sayings | None = None  # of the lyric that is spoken over it


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
    with model.answering() as net, torch.inference_mode():
        live, cache = list(range(len(rows))), Cache(net, len(rows), model.device)
        before = [WORDS] * len(rows)
        while live:
            some = [rows[i] for i in live]
            logits = _next(cache, before, some)
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
        asked = None if wish.script.ends else wish.told.get("bars")
        if asked and asked <= len(wish.script.bars):
            asked = None  # so many are given
        self.grammar = Grammar(strict=wish.how.whole_bars, asked=asked)
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
        words = self.words if done else closed(self.grammar.told, self.words, strict=self.grammar.strict)
        return Written(dict(self.grammar.told), words, self.logprob, self.chosen, not done)


_NO_SIGNS = np.ones(WORDS, bool)
_NO_SIGNS[SIGN:LENGTH] = _NO_SIGNS[END] = False


def _only(word: int) -> Any:
    mask = np.zeros(WORDS, bool)
    mask[word] = True
    return mask


def _next(cache: Cache, before: list[int], rows: Sequence[_Row]) -> Tensor:
    """Logits (B, WORDS) of the next word, minus infinity where none may stand."""
    device = cache.layers[0].device
    known = torch.tensor([row.grammar.known for row in rows], device=device)
    words = torch.tensor(before, device=device)
    logits = cache.next(words, known.unbind(1), None)
    allowed = torch.from_numpy(np.stack([row.look() for row in rows])).to(device)
    return logits.masked_fill(~allowed, -torch.inf)


# -- wishes ------------------------------------------------------------------------------------------------------------


def play(model: Any, request: Request) -> Iterator[Part]:
    """Each tune as ABC, and then as the file that the request names: sound, .abc, .mid, .musicxml, or the score's
    picture (.svg, .png); the notation in the other ways lies beside it. Without a name the ABC is all. At last comes a
    `finish_reason`.

    Raises UsageError for what cannot be asked, ModelError where the SoundFont has not been fetched.
    """
    wishes = _wishes(request)
    files = _files(request, len(wishes))
    for start in range(0, len(wishes), AT_ONCE):
        some = wishes[start : start + AT_ONCE]
        for wish, file, written in zip(some, files[start:], write(model, some), strict=False):
            yield from files_of(wish, file, written)
    yield Part(meta={"finish_reason": "stop"})


def play_many(model: Any, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
    """Answers of many requests, written together."""
    wanted = []
    for index, request in enumerate(requests):
        wishes = _wishes(request)
        wanted += [(index, *pair) for pair in zip(wishes, _files(request, len(wishes)), strict=True)]
    parts: list[Part] = []
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        for (index, wish, file), written in zip(some, write(model, [wish for _, wish, _ in some]), strict=True):
            parts += [part for part in files_of(wish, file, written) if part.text or part.path]
            if wish.number == wish.how.n - 1:
                yield index, Message("assistant", tuple(parts))
                parts = []


def _files(request: Request, count: int) -> list[Path | None]:
    """Where the files of an answer go. One without suffix is a sound where there is a SoundFont to play it."""
    if request.out is None:
        return [None] * count
    found = request.files(count, ".flac" if has_soundfont() else ".abc")
    if request.options.get("engrave") or found[0].suffix.lower() in PICTURES:
        engraver()  # whoever lacks it is told before anything is composed
    return [*found]


def _wishes(request: Request) -> list[Wish]:
    """What a request asks for, one entry a tune."""
    how = request.options_as(TuneOptions)
    if odd := [part.kind for message in request.messages for part in message.parts if part.kind != "text"]:
        raise UsageError(f"The request holds a part of kind {odd[0]}; tunes are made from words.", "Use `melody`.")
    words = words_of(request.messages)
    told, seed = facts_in(words) | _asked(how), seed_of(request)
    script: Callable[..., Script] = _free
    if how.melody:
        given, script = _given(how)
        told = given | told
    elif not words.strip() and not told:
        raise UsageError("There is nothing to compose: the request has no words.", "E.g. a jig in D major.")
    if "metre" not in told and (metre := USUAL_METRES.get(told.get("rhythm", ""))):
        told["metre"] = metre
    says = Sayings(how) if how.lyrics is not None else None
    return [Wish(n, how, told, seed + n, script(chance=random.Random(seed + n)), says) for n in range(how.n)]


def _asked(how: TuneOptions) -> dict[str, Any]:
    """What the options tell of a tune."""
    told: dict[str, Any] = {name: getattr(how, name) for name in ("metre", "rhythm", "region") if getattr(how, name)}
    try:
        told |= key_facts(how.key) if how.key else {}
    except DataError as error:
        raise UsageError(f"key: {error.message}", error.hint) from None
    return told | ({"bars": nearest_bars(how.bars)} if how.bars else {})


def _given(how: TuneOptions) -> tuple[dict[str, Any], Callable[..., Script]]:
    """What a melody tells of the tune, and what makes each answer's script. Raises UsageError when it is no tune."""
    try:
        tune = read_tune(how.melody)
        told, words = told_of(tune, **facts_of(tune)), words_of_tune(tune)
    except DataError as error:
        raise UsageError(f"The melody cannot be used: {error.message}", error.hint) from None
    told = {kind: value for kind, value in told.items() if value != ""}
    bars = _bars(words)
    if how.use == "vary":
        return told, partial(_varied, bars, bar_ticks(told["metre"]), 0.5 if how.keep is None else how.keep)
    kept = len(bars) if how.keep is None else max(1, round(how.keep * len(bars)))
    del told["bars"]  # how long it becomes is not the melody's to say
    return told, partial(_begun, bars[:kept])


def _bars(words: Sequence[int]) -> list[tuple[_BarNotes, int]]:
    """The notes of each bar, and the sign after it."""
    grammar, notes, found = Grammar(), list[tuple[int, int]](), list[tuple[_BarNotes, int]]()
    for word in words:
        if SIGN <= word < LENGTH:
            found.append((tuple(notes), word))
            notes = []
        elif REST <= word < TOLD:
            notes.append((grammar.length, word))
        grammar.put(word)
    return found


def _free(*, chance: random.Random) -> Script:
    return Script()


def _begun(bars: Sequence[tuple[_BarNotes, int]], *, chance: random.Random) -> Script:
    return Script(bars)


def _varied(bars: Sequence[tuple[_BarNotes, int]], full: int, keep: float, *, chance: random.Random) -> Script:
    """As many whole bars are written anew as are not to be kept. Bars that are not whole, and the last, stay."""
    whole = [n for n, (notes, _) in enumerate(bars[:-1]) if sum(TICKS[length] for length, _ in notes) == full]
    anew = set(chance.sample(whole, round((1 - keep) * len(whole))))
    return Script([(None if n in anew else notes, sign) for n, (notes, sign) in enumerate(bars)], ends=True)
