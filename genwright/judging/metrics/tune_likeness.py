"""Tune likeness: how far the answers' notes are from the held-out tunes' in distribution; 0 is the same, 1 unlike.

The mean divergence (Jensen–Shannon, bits) of four histograms: the notes' places in the scale, the steps between them,
their places in the bar, their lengths; all of them are the same in every key. In the details stands each, and `halves`:
one half of the held-out tunes beside the other, below which no model can be told from people.
"""

from typing import Any

import numpy as np

from genwright.core import Pairs, Score, Settings, UsageError
from genwright.judging.intervals import RESAMPLES, score_of_sums
from genwright.judging.tunes import apart, looks, mean, tune_in

needs = frozenset({"answers"})


def score(
    pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any
) -> Score:  # fmt: skip
    """Raises UsageError when no answer is a tune."""
    read = [(tune_in(pair.answer), tune_in(pair.example.answer)) for pair in pairs]
    both = [(looks(made), looks(true)) for made, true in read if made and true]
    if not both:
        raise UsageError("No answer is a tune in ABC.", "Leave `tune_likeness` out.")
    rows = np.array([np.concatenate(one) for one in both])
    made, true = rows.sum(0).reshape(2, -1)
    each = {name: float(one) for name, one in apart(made, true).items()}
    truths = rows[:, len(true) :]
    halves = mean([float(one) for one in apart(truths[::2].sum(0), truths[1::2].sum(0)).values()])
    return score_of_sums(
        rows, _apart, bootstrap=bootstrap, seed=seed, higher_is_better=False, unit="bits",
        signature="tune_likeness|Jensen-Shannon", details={**each, "halves": halves, "tunes": len(both)},
    )  # fmt: skip


def _apart(sums: np.ndarray) -> np.ndarray:
    made, true = np.split(sums, 2, axis=1)
    return np.asarray(np.mean(list(apart(made, true).values()), axis=0))
