"""Bits a word of held-out drawings, beside n-grams of the same words under the same grammar.

In the details stand models of the 0 to 3 words before (Witten & Bell 1991, interpolated), counted on the training
drawings: what needs no network. Words are those of media/strokes.py, so models of other engines do not compare.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from genwright.core import Example, GenwrightError, Pairs, Score, Settings, UsageError
from genwright.judging.intervals import RESAMPLES, score_of_sums
from genwright.judging.pictures import picture_of
from genwright.media.drawing import read_drawing
from genwright.media.picture import read_svg
from genwright.media.strokes import WORDS, places_of, words_of_drawing

needs = frozenset({"likelihood", "train"})
_ORDERS = 4  # words before: 0, 1, 2, 3


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), bootstrap: int = RESAMPLES, seed: int = 0,
    **context: Any,
) -> Score:  # fmt: skip
    """Raises UsageError when no row has a likelihood."""
    known = [
        (p.likelihood.nll / math.log(2), p.likelihood.tokens) for p in pairs if p.likelihood and p.likelihood.tokens
    ]
    if not known:
        raise UsageError("No held-out drawing has a likelihood.", "Leave `drawing_bits` out.")
    counts = _counted(words for example in train if (words := _words(example)))
    held = [_words(pair.example) for pair in pairs if pair.likelihood and pair.likelihood.tokens]
    rows = np.array(known, dtype=np.float64)
    return score_of_sums(
        rows, _bits, bootstrap=bootstrap, seed=seed, each=tuple(_bits(rows).tolist()), higher_is_better=False,
        unit="bits a word", signature="drawing_bits|strokes:1/4|word-weighted",
        details={**_ngrams(counts, held), "words": int(rows[:, 1].sum()), "rows": len(known)},
    )  # fmt: skip


def _bits(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


def _words(example: Example) -> list[int]:
    """The words of a row's drawing; none when it has none."""
    path = picture_of(example.answer)
    try:
        return words_of_drawing(read_drawing(read_svg(path))) if path else []
    except GenwrightError:
        return []


_Counts = dict[tuple[int, ...], Counter[int]]


def _counted(drawings: Iterable[Sequence[int]]) -> _Counts:
    """How often each word stood behind each 0 to 3 words."""
    found: _Counts = defaultdict(Counter)
    for words in drawings:
        for place, word in enumerate(words):
            for order in range(min(place, _ORDERS - 1) + 1):
                found[tuple(words[place - order : place])][word] += 1
    return found


def _ngrams(counts: _Counts, drawings: Sequence[Sequence[int]]) -> dict[str, float]:
    """Bits a word of each order, with the share of words that the grammar forbids taken out."""
    totals, number = np.zeros(_ORDERS), 0
    for words in drawings:
        places = places_of(words)
        for place, word in enumerate(words):
            chances, low, high = np.full(WORDS, 1 / WORDS), places.lows[place], places.highs[place]
            for order in range(_ORDERS):
                if order <= place and (seen := counts.get(tuple(words[place - order : place]))):
                    chances = _mixed(seen, chances)
                totals[order] -= math.log2(chances[word] / chances[low : high + 1].sum())
        number += len(words)
    return {f"order_{order}": float(total / max(1, number)) for order, total in enumerate(totals)}


def _mixed(seen: Counter[int], shorter: np.ndarray) -> np.ndarray:
    """Witten-Bell: as much weight for what a shorter context says as there are different words."""
    found = shorter * len(seen)
    found[list(seen)] += np.fromiter(seen.values(), float, len(seen))
    return found / (seen.total() + len(seen))
