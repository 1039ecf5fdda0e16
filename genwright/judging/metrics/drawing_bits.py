"""Bits a word of held-out drawings, beside n-grams of the same words under the same grammar.

In the details stand models of the 0 to 3 words before (Witten & Bell 1991, interpolated), counted on the training
drawings: what needs no network. Words are those of media/strokes.py, so models of other engines do not compare.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from genwright.core import Example, GenwrightError, Pairs, Score, Settings, UsageError
from genwright.judging import word_ngrams
from genwright.judging.intervals import RESAMPLES, score_of_sums
from genwright.judging.pictures import picture_of
from genwright.media.picture import read_svg
from genwright.media.strokes import GRID, WORDS, places_of, words_of_svg

needs = frozenset({"likelihood", "train"})


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
    counts = word_ngrams.counted(words for example in train if (words := _words(example)))
    held = [_words(pair.example) for pair in pairs if pair.likelihood and pair.likelihood.tokens]
    rows = np.array(known, dtype=np.float64)
    return score_of_sums(
        rows, _bits, bootstrap=bootstrap, seed=seed, each=tuple(_bits(rows).tolist()), higher_is_better=False,
        unit="bits a word", signature=f"drawing_bits|strokes:1/{GRID}|word-weighted",
        details={**word_ngrams.bits(counts, held, WORDS, list(map(_ranges, held))), "words": int(rows[:, 1].sum()),
                 "rows": len(known)},
    )  # fmt: skip


def _bits(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


def _words(example: Example) -> list[int]:
    """The words of a row's drawing; none when it has none."""
    path = picture_of(example.answer)
    try:
        return words_of_svg(read_svg(path)) if path else []
    except GenwrightError:
        return []


def _ranges(words: Sequence[int]) -> list[tuple[int, int]]:
    """Between which words the grammar lets each place choose."""
    places = places_of(words)
    return list(zip(places.lows, places.highs, strict=True))
