"""Bits a word of held-out tunes, beside n-grams of the same words.

Beside it stand models of the 0 to 3 words before (Witten & Bell 1991, interpolated), counted on the training
tunes: what needs no network. Words are those of media/score.py, so models of other engines do not compare.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from genwright.core import Example, Pairs, Score, Settings, UsageError
from genwright.judging import word_ngrams
from genwright.judging.intervals import RESAMPLES, score_of_sums
from genwright.judging.tunes import words_in
from genwright.media.score import TOLD

needs = frozenset({"likelihood", "train"})


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), bootstrap: int = RESAMPLES, seed: int = 0,
    **context: Any,
) -> Score:  # fmt: skip
    """Raises UsageError when no row has a likelihood."""
    known = [pair for pair in pairs if pair.likelihood and pair.likelihood.tokens]
    if not known:
        raise UsageError("No held-out tune has a likelihood.", "Leave `tune_bits` out.")
    rows = np.array([(p.likelihood.nll / math.log(2), p.likelihood.tokens) for p in known if p.likelihood], np.float64)
    counts = word_ngrams.counted(words for example in train if (words := words_in(example)))
    held = [words_in(pair.example) for pair in known]
    return score_of_sums(
        rows, _bits, bootstrap=bootstrap, seed=seed, each=tuple(_bits(rows).tolist()), higher_is_better=False,
        unit="bits a word", signature="tune_bits|score|word-weighted",
        beside=word_ngrams.bits(counts, held, TOLD), details={"words": int(rows[:, 1].sum()), "rows": len(known)},
    )  # fmt: skip


def _bits(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / np.maximum(sums[:, 1], 1)
