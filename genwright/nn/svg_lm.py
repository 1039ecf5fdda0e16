"""SvgLM: a learner of drawings, word by word, from what they show; it writes none that is not whole and valid.

It is taught by the one loop and the text objectives: a row is a caption (or several) and an SVG, a slot is a word of
its strokes (media/strokes.py). Which caption is told, and which rows are told none, is drawn from torch's generator,
which the loop keeps: a killed training goes on bit-equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.errors import GenwrightError
from genwright.core.model import Encoded, Likelihood, Request, Unlearnable
from genwright.media.picture import read_svg
from genwright.media.strokes import LAST, SLOTS, WORDS, places_of, words_of_svg

from .captions import Meaning, Reader, Words, words_of
from .keeping import Keeping
from .looks import CARDS, Looks
from .packing import Packed, pack
from .picture_rows import stacked
from .small_lm import SmallLM, end_to_end, likelihood_of
from .svg_options import DrawingOptions, SvgConfig
from .svg_writing import allowed, draw, draw_many

_MOST_NAMES = 20_000
_SHORT = 40  # characters of a name that is kept
_WAYS = 8  # a square can be laid on itself
_KNOWN = ("slots", "xs", "ys", "lows", "highs")


class SvgLM(Keeping):
    """Learner, Batched and Scorer of the floor's contracts."""

    engine, gives = "svg_lm", "image"
    options = DrawingOptions  # what a request may ask for
    goes_on = False  # it writes no text
    _vectors: np.ndarray | None = None  # of the names
    untold = 0.1  # share of the rows that are taught without words, so that guidance is possible

    def __init__(self, config: SvgConfig, names: Sequence[str] = (), taught: int = 0, *, seed: int = 0):
        super().__init__()
        self.config, self.names = config, tuple(map(str, names))
        words = Words(config.words, config.width)
        self.reader: Reader = words if config.text_encoder == "learned" else Meaning()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bag = config.words if config.text_encoder == "learned" else 0
            known = (SLOTS, LAST + 1, LAST + 1)
            net: Any = SmallLM(
                config, WORDS, known, reader_width=self.reader.width, bag=bag, ways=_WAYS if config.turned else 0
            )
            if config.looks:
                net.looks = Looks(self.reader.width, taught)
            self.module: Any = net.eval()

    @property
    def cards(self) -> tuple[str, ...]:
        """What must be in the store to learn, and to choose among candidates."""
        return CARDS if self.config.looks else ()

    # -- learning ----------------------------------------------------------------------------------------------------

    def survey(self, examples: Sequence[Example]) -> None:
        """Keep what is taught by a short name, for `understood`: such names go with the model. A bag of words has no
        neighbours, and needs none. Where the model is to know looks, they are learned here."""
        if self.config.text_encoder != "usem3":
            return
        texts = (text.strip() for example in examples for text in _captions(example))
        names = tuple(dict.fromkeys((*self.names, *(text for text in texts if 0 < len(text) <= _SHORT))))
        if len(names) > _MOST_NAMES:
            self.notes.append(f"Of {len(names):,} short names the first {_MOST_NAMES:,} are kept with the model.")
        self.names, self._vectors = names[:_MOST_NAMES], None
        if self.config.looks:
            shown = [one for one in examples if _drawing(one) and _captions(one)]
            files = [path for one in shown if (path := _drawing(one))]
            words = self.reader([_captions(one)[0] for one in shown])
            self.module.looks.fit(files, words, [str(one.meta.get("style")) for one in shown])

    def options_of(self, example: Example) -> dict[str, Any]:
        """A row that is judged is asked in its own words: the network is measured, not the nearest name."""
        return {"nearest": 1.0}

    def facts(self) -> dict[str, Any]:
        return {"names": list(self.names), **({"taught": len(self.module.looks.taught)} if self.config.looks else {})}

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """The words of the drawing, each with what the grammar knows of its place, and all captions of the row: the
        words asked and those in `meta["captions"]`. There is one answer, so `supervise` changes nothing.

        Raises Unlearnable with the reason: no drawing, no caption, a drawing that is none of lines or too long.
        """
        path = _drawing(example)
        if path is None:
            raise Unlearnable("the answer holds no drawing")
        captions = _captions(example)
        if not captions:
            raise Unlearnable("the drawing has no caption")
        try:
            svg = read_svg(path)
            ways = [words_of_svg(svg, way) for way in range(_WAYS if self.config.turned else 1)]
        except GenwrightError as error:
            raise Unlearnable(error.message.rstrip(".")) from None
        size = len(ways[0])
        if size > self.config.longest:
            raise Unlearnable(f"the drawing has {size} words; the model reads {self.config.longest}")
        sequences = [_sequence(words, way) for way, words in enumerate(ways) if len(words) <= self.config.longest]
        sequences[0] |= {"tokens": _before(sequences[0]["targets"]), "captions": self.reader(captions)}
        return Encoded(tuple(sequences), size, float(size))

    def collate(self, items: Sequence[Encoded]) -> Packed:
        """Drawings end to end, each with one of its captions, drawn at random; while it is taught a share of them
        turned."""
        rows, captions = [], []
        for item in items:
            row = item.sequences[0]
            captions.append(row["captions"][int(torch.randint(len(row["captions"]), ()))])
            if self.module.training and len(item.sequences) > 1 and float(torch.rand(())) < self.config.turned:
                row = item.sequences[int(torch.randint(1, len(item.sequences), ()))]
            rows.append(row)
        return packed(rows, captions)

    def loss(self, batch: Packed, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy summed over the words, among those that the grammar allows."""
        untold = torch.zeros(len(batch.lengths), dtype=torch.bool, device=batch.tokens.device)
        if self.module.training:
            untold = torch.rand(len(untold), device=untold.device) < self.untold
        chances = self._chances(batch, untold)
        total = -chances.gather(1, batch.targets[:, None]).sum()
        if not label_smoothing:
            return total
        there = allowed(batch.extra["lows"], batch.extra["highs"])
        spread = -(chances.masked_fill(~there, 0).sum(1) / there.sum(1)).sum()
        return (1 - label_smoothing) * total + label_smoothing * spread

    def likelihood(self, examples: Sequence[Example]) -> Iterator[Likelihood]:
        """What the model makes of each drawing by its first caption."""
        return likelihood_of(examples, self.encode, self._likelihoods)

    def _likelihoods(self, rows: Sequence[dict[str, Any]]) -> list[Likelihood]:
        batch = packed(rows, [row["captions"][0] for row in rows]).to(self.device)
        with self.answering():
            told = torch.zeros(len(rows), dtype=torch.bool, device=self.device)
            found = self._chances(batch, told).gather(1, batch.targets[:, None])[:, 0]
        return [Likelihood(-float(one.double().sum()), len(one), len(one)) for one in found.split(list(batch.lengths))]

    def _chances(self, batch: Packed, untold: Tensor) -> Tensor:
        """(T, WORDS) log-probabilities."""
        device = batch.tokens.device
        told = self.module.told(batch.extra["captions"], untold)
        if self.config.turned:
            told = told + self.module.ways(batch.extra["ways"])
        told = told.repeat_interleave(torch.tensor(batch.lengths, device=device), 0)
        slot, x, y, low, high = (batch.extra[name] for name in _KNOWN)
        attend = end_to_end(batch.lengths, device)
        logits = self.module(batch.tokens, (slot, x, y), batch.positions, told, attend)
        chances: Tensor = logits.masked_fill(~allowed(low, high), -torch.inf).log_softmax(-1)
        return chances

    # -- answering ---------------------------------------------------------------------------------------------------

    def understood(self, words: str, least: float) -> str:
        """The name it was taught that is nearest to `words` in whatever language, where their vectors' cosine is
        `least` or more; else the words."""
        if least >= 1 or not self.names or words in self.names:
            return words
        if self._vectors is None:
            self._vectors = _unit(self.reader(self.names))
        near = self._vectors @ _unit(self.reader([words]))[0]
        best = int(near.argmax())
        return self.names[best] if near[best] >= least else words

    def generate(self, request: Request) -> Iterator[Part]:
        """Drawings as files: see `svg_writing.draw`."""
        return draw(self, request)

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers of many requests, written together."""
        return draw_many(self, requests)


def _drawing(example: Example) -> Path | None:
    return next((part.path for part in example.answer.parts if part.kind == "image" and part.path), None)


def _captions(example: Example) -> list[str]:
    """The words asked, and the captions of the row in all languages."""
    more = [text for texts in (example.meta.get("captions") or {}).values() for text in texts]
    return list(dict.fromkeys(text for text in (words_of(example.prompt), *more) if text.strip()))


def _sequence(words: Sequence[int], way: int) -> dict[str, np.ndarray]:
    places = places_of(words)
    known = zip(_KNOWN, (places.slots, places.xs, places.ys, places.lows, places.highs), strict=True)
    columns = {name: np.array(column, np.int16) for name, column in known}
    return {"targets": np.array(words, np.int32), **columns, "way": np.array(way)}


def _before(targets: np.ndarray) -> np.ndarray:
    return np.concatenate([[WORDS], targets[:-1]]).astype(np.int32)


def packed(rows: Sequence[dict[str, Any]], captions: Sequence[np.ndarray]) -> Packed:
    """Drawings end to end, each with its caption and the way that it lies."""
    batch = pack(
        {"tokens": _before(row["targets"]), **{name: row[name] for name in ("targets", *_KNOWN)}} for row in rows
    )
    known = {name: batch.extra[name].long() for name in _KNOWN}
    ways = torch.tensor([int(row["way"]) for row in rows])
    return replace(batch, extra={**known, "captions": stacked(captions), "ways": ways})


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-6)
