"""AbcLM: a learner of tunes, note by note, from what is told of them: rhythm, metre, key, region, how many bars.

It is taught by the one loop and the text objectives: a row's answer is a tune as ABC, a slot is a word of it
(media/score.py). Notes are told by their place in the scale, so every tune teaches all twelve keys; its key is another
one for half of the rows (then which key is usual is not learned from it). The order in which things are told is
shuffled, so that any of them may be left to the model. Both are drawn from torch's generator, which the loop keeps: a
killed training goes on bit-equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.errors import DataError
from genwright.core.model import Encoded, Likelihood, Request, Unlearnable
from genwright.media.abc import read_tune
from genwright.media.score import KINDS, KNOWN, TONICS, WORDS, Grammar, moved, told_of, word_of, words_of_tune
from genwright.media.tune_words import facts_in, facts_of

from .abc_options import AbcConfig, TuneOptions
from .abc_writing import play, play_many
from .captions import words_of
from .keeping import Keeping
from .packing import IGNORE, Packed, pack
from .small_lm import SmallLM, end_to_end, likelihood_of

_TOLD = len(KINDS)


class AbcLM(Keeping):
    """Learner, Batched and Scorer of the floor's contracts."""

    engine, gives = "abc_lm", "audio"
    options = TuneOptions  # what a request may ask for
    goes_on = False  # a text is not its beginning
    other_keys = 0.5  # share of the rows that are taught in another key than their own

    def __init__(self, config: AbcConfig, *, seed: int = 0):
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module: Any = SmallLM(config, WORDS, tuple(KNOWN.values())).eval()

    # -- learning ----------------------------------------------------------------------------------------------------

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """The words of the tune, each with what is known of its place, and what is told of it: by its headers, and by
        the words asked where those are silent. There is one answer, so `supervise` changes nothing.

        Raises Unlearnable with the reason: no ABC, music that there are no words for, a tune too long.
        """
        try:
            tune = read_tune(example.answer.text)
            words = words_of_tune(tune)
            asked = facts_in(words_of(example.prompt)) if example.prompt else {}
            told = told_of(tune, **({k: asked.get(k, "") for k in ("rhythm", "region")} | facts_of(tune)))
        except DataError as error:
            raise Unlearnable(error.message.rstrip(".")) from None
        size = _TOLD + len(words)
        if size > self.config.longest:
            raise Unlearnable(f"the tune has {size} words; the model reads {self.config.longest}")
        row = {"told": np.array([word_of(kind, value) for kind, value in told.items()], np.int32),
               "words": np.array(words, np.int32), "known": _places(told, words)}  # fmt: skip
        return Encoded((row,), size, float(size))

    def collate(self, items: Sequence[Encoded]) -> Packed:
        """Tunes end to end; what is told of each in random order, and half of them in a random key."""
        rows = []
        for item in items:
            row = item.sequences[0]
            order, key = torch.randperm(_TOLD).tolist(), int(torch.randint(len(TONICS), ()))
            rows.append(_sequence(row, order, key if float(torch.rand(())) < self.other_keys else None))
        return packed(rows)

    def loss(self, batch: Packed, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy summed over the words."""
        logits = self._logits(batch)
        return F.cross_entropy(
            logits, batch.targets, ignore_index=IGNORE, reduction="sum", label_smoothing=label_smoothing
        )

    def likelihood(self, examples: Sequence[Example]) -> Iterator[Likelihood]:
        """What the model makes of each tune after it is told what it is."""
        return likelihood_of(examples, self.encode, self._likelihoods)

    def _likelihoods(self, rows: Sequence[dict[str, Any]]) -> list[Likelihood]:
        batch = packed([_sequence(row, range(_TOLD), None) for row in rows]).to(self.device)
        with self.answering():
            chances = self._logits(batch).log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
        each = [one[_TOLD:] for one in chances.split(list(batch.lengths))]
        return [Likelihood(-float(one.double().sum()), len(one), len(one)) for one in each]

    def _logits(self, batch: Packed) -> Tensor:
        known = [batch.extra[name] for name in KNOWN]
        attend = end_to_end(batch.lengths, batch.tokens.device)
        logits: Tensor = self.module(batch.tokens, known, batch.positions, None, attend)
        return logits

    # -- answering ---------------------------------------------------------------------------------------------------

    def generate(self, request: Request) -> Iterator[Part]:
        """Tunes as ABC and, where a file is asked for, as sound: see `abc_writing.play`."""
        return play(self, request)

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers of many requests, written together."""
        return play_many(self, requests)


def _places(told: dict[str, Any], words: Sequence[int]) -> Any:
    """(len(words), len(KNOWN)) int16: what is known before each word."""
    grammar, found = Grammar(), []
    for kind, value in told.items():
        grammar.put(word_of(kind, value))
    for word in words:
        found.append(grammar.known)
        grammar.put(word)
    return np.array(found, np.int16)


def _sequence(row: dict[str, Any], order: Sequence[int], key: int | None) -> dict[str, Any]:
    """A row as a sequence: what is told in that order, then the tune; in another key where one is given."""
    told, words = row["told"][list(order)], row["words"]
    tonic = word_of("tonic", 0)
    is_tonic = (told >= tonic) & (told < tonic + len(TONICS))
    targets = told.copy()
    if key is not None:
        try:
            words = np.array(moved(words.tolist(), int(told[is_tonic][0]) - tonic, key), np.int32)
            told = np.where(is_tonic, tonic + key, told).astype(np.int32)
            targets[is_tonic] = IGNORE
        except DataError:
            pass  # a tune of so wide a range stays in its own key
    known = np.concatenate([np.zeros((_TOLD, len(KNOWN)), np.int16), row["known"]])
    return {"tokens": np.concatenate([[WORDS], told, words[:-1]]).astype(np.int32),
            "targets": np.concatenate([targets, words]).astype(np.int32),
            **{name: known[:, place] for place, name in enumerate(KNOWN)}}  # fmt: skip


def packed(rows: Sequence[dict[str, Any]]) -> Packed:
    """Sequences end to end: `tokens`, `targets` and, of each place, all that is `KNOWN`."""
    batch = pack(rows)
    return replace(batch, extra={name: batch.extra[name].long() for name in KNOWN})
